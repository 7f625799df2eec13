"""Arrays that do not fit each other are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_catalog.array_checks import check_further_latents, check_starts


def test_starts_divide_all_rows() -> None:
    check_starts("text_start", None, 2, 5)
    check_starts("text_start", np.array([0, 2, 5]), 2, 5)
    for wrong in ([0, 5], [1, 2, 5], [0, 2, 4], [0, 6, 5]):
        with pytest.raises(ValueError, match="text_start does not divide 5 rows among 2"):
            check_starts("text_start", np.array(wrong), 2, 5)


def test_further_latents_have_the_form_of_the_latents() -> None:
    latents = np.zeros((3, 4, 2, 2), np.float16)
    spread = latents.astype(np.uint8)
    check_further_latents({"latents": latents})
    check_further_latents({"latents": latents, "flipped": latents})
    check_further_latents({"latents": latents, "latents_spread": spread})
    both: dict[str, NDArray[Any]] = {
        "flipped": latents,
        "latents_spread": spread,
        "flipped_spread": spread,
    }
    check_further_latents({"latents": latents, **both})
    for name, wrong in (
        ("flipped", latents[:2]),
        ("flipped", spread),
        ("latents_spread", spread[:2]),
        ("flipped_spread", spread[:2]),
    ):
        with pytest.raises(ValueError, match=f"{name} is"):
            check_further_latents({"latents": latents, **both, name: wrong})
    for missing in both:
        some = {name: array for name, array in both.items() if name != missing}
        with pytest.raises(ValueError, match="flipped_spread must come with"):
            check_further_latents({"latents": latents, **some})
