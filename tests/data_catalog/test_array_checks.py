"""Arrays that do not fit each other are named."""

from __future__ import annotations

import numpy as np
import pytest

from data_catalog.array_checks import check_alike, check_starts


def test_starts_divide_all_rows() -> None:
    check_starts("text_start", None, 2, 5)
    check_starts("text_start", np.array([0, 2, 5]), 2, 5)
    for wrong in ([0, 5], [1, 2, 5], [0, 2, 4], [0, 6, 5]):
        with pytest.raises(ValueError, match="text_start does not divide 5 rows among 2"):
            check_starts("text_start", np.array(wrong), 2, 5)


def test_an_array_beside_latents_has_their_form() -> None:
    latents = np.zeros((3, 4, 2, 2), np.uint8)
    check_alike("flipped", None, latents)
    check_alike("flipped", latents, latents)
    for wrong in (latents[:2], latents.astype(np.float16)):
        with pytest.raises(ValueError, match="flipped is"):
            check_alike("flipped", wrong, latents)
