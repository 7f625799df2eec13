"""What a config says of a VAE's latents equals what the loaded VAE makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.vaes import SHAPES, VAES, save_vae
from tld_model.encoders.config_files import encoder_config, vae_downscale, vae_problem
from tld_model.encoders.vae_config import VAE_CLASSES, VaeConfig


@pytest.mark.parametrize("class_name", VAE_CLASSES)
def test_the_config_of_each_class_gives_the_shape_of_latents(
    class_name: str, tmp_path: Path
) -> None:
    assert VAES.keys() == set(VAE_CLASSES)
    name = save_vae(class_name, tmp_path / "vae")
    config = encoder_config(name, VaeConfig)
    assert config
    assert (config.downscale, config.channels) == SHAPES[class_name]
    assert vae_downscale(name) == SHAPES[class_name][0]
    assert vae_problem(name) is None


@pytest.mark.parametrize(
    ("config", "allowed"),
    [
        ({"_class_name": "AutoencoderKL"}, True),
        ({"_class_name": "AutoencoderKL", "force_upcast": True}, False),
        ({"_class_name": "AutoencoderTiny", "force_upcast": False}, True),
        ({"_class_name": "AutoencoderDC"}, False),
        ({"_class_name": "AutoencoderKLFlux2"}, False),
    ],
)
def test_float16_is_for_classes_that_are_known_to_bear_it(
    config: dict[str, object], *, allowed: bool
) -> None:
    assert VaeConfig.model_validate(config).allows_half_precision is allowed


def test_a_config_of_something_else_is_a_problem_and_none_at_all_is_not(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    assert "is of the class UNet2DModel; supported are" in (vae_problem(str(tmp_path)) or "")
    (tmp_path / "config.json").write_text("{}")
    assert "names no class" in (vae_problem(str(tmp_path)) or "")
    assert vae_problem("owner/name") is None
