"""Exports for diffusers, loaded by diffusers in a process that cannot import this project: the same
pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.compute.inference import inference_on
from pipeline.config.evaluate import EvaluateConfig
from pipeline.export.bundle_source import bundle_source
from pipeline.export.diffusers import ExportError, check_target, export_diffusers
from pipeline.export.model_card import Usage, card_of_weights
from pipeline.generate.generator import ImageGenerator
from tests.support import load_exports
from tests.support.text_encoders import save_decoder, save_t5
from tests.support.untrained import untrained_generator
from tests.support.vaes import save_vae
from tld_model.config import DenoiserConfig, SamplingSettings, TextSettings
from tld_model.denoiser import Denoiser
from tld_model.encoders.text_encoder import load_text_encoder
from tld_model.encoders.vae import load_image_codec
from tld_model.sampler import guided, noise_levels, sample

pytestmark = pytest.mark.slow

PROMPTS = ["a small red star", "a large blue circle in the top left on a yellow background"]
SEEDS = [7, 11]
OTHER_VAES = ("AutoencoderTiny", "AutoencoderDC", "AutoencoderKLFlux2")
USUAL = EvaluateConfig(steps=3, guidance=2.0, guidance_interval=(0.2, 0.9))


def other_generator() -> ImageGenerator:
    """By token, predicts v, for inpainting, and of another scale of latents, as imported ones
    are."""
    base = untrained_generator()
    torch.manual_seed(1)
    text_encoder = load_text_encoder("shapes-clip", "cpu", "tokens")
    options: dict[str, Any] = {
        "text": "tokens",
        "predicts": "v",
        "qk_norm": True,
        "inpainting": True,
        "norm": "post",
    }
    denoiser = Denoiser(
        DenoiserConfig(latent_size=8, text_dim=text_encoder.dim, width=64, layers=1, **options)
    ).eval()
    for weight in denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return ImageGenerator(
        denoiser,
        text_encoder,
        replace(base.codec, scaling_factor=0.125, shift=0.5),
        inference_on("cpu"),
    )


def generator_with(name: str, settings: TextSettings) -> ImageGenerator:
    """With another text encoder, and blocks of joint attention."""
    text_encoder = load_text_encoder(name, "cpu", settings=settings)
    generate = untrained_generator(text_dim=text_encoder.dim, blocks="joint")
    return replace(generate, text_encoder=text_encoder)


def generator_with_vae(class_name: str, folder: Path) -> ImageGenerator:
    """With a VAE of another class."""
    codec = load_image_codec(save_vae(class_name, folder), "cpu")
    generate = untrained_generator(
        latent_channels=codec.latent_channels, latent_size=64 // codec.downscale
    )
    return replace(generate, codec=codec)


@dataclass(frozen=True)
class Exported:
    """The exports, what drew them here, and what diffusers made of them elsewhere."""

    pooled: ImageGenerator
    tokens: ImageGenerator
    others: dict[str, ImageGenerator]
    folder: Path
    results: dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("exports")
    pooled, tokens = untrained_generator(), other_generator()
    others = {name: generator_with_vae(name, root / f"a {name}") for name in OTHER_VAES} | {
        "decoder": generator_with(save_decoder(root / "a decoder"), TextSettings(layer=-2)),
        "t5": generator_with(save_t5(root / "a t5"), TextSettings(None, 9, "an image: {}")),
    }
    for name, generate in {"pooled": pooled, "tokens": tokens, **others}.items():
        export_diffusers(generate, USUAL, card_of(generate), PROMPTS[0], root / name)
    jobs: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[int]]] = {
        "usual": ("pooled", {}, {"prompt": PROMPTS}, SEEDS),
        "by token": (
            "tokens",
            {"custom_pipeline": str(root / "tokens")},
            {"prompt": PROMPTS},
            SEEDS,
        ),
        "negative": (
            "tokens",
            {},
            {"prompt": PROMPTS, "negative_prompt": "a large green square, and more"},
            SEEDS,
        ),
        "asked": (
            "pooled",
            {},
            ASKED | {"prompt": PROMPTS[0], "num_images_per_prompt": 2, "height": 64},
            SEEDS,
        ),
        "decoder": ("decoder", {}, {"prompt": PROMPTS}, SEEDS),
        "t5": ("t5", {}, {"prompt": PROMPTS}, SEEDS),
        **{name: (name, {}, {"prompt": PROMPTS}, SEEDS) for name in OTHER_VAES},
        "half": ("pooled", {"dtype": "bfloat16"}, {"prompt": PROMPTS}, SEEDS),
        "wrong": ("pooled", {}, {"prompt": PROMPTS, "width": 512, "solver": "magic"}, SEEDS[:1]),
    }
    listed = [
        {
            "folder": str(root / name),
            "load": load,
            "call": call,
            "seeds": seeds,
            "out": str(root / f"{job}.npy"),
        }
        for job, (name, load, call, seeds) in jobs.items()
    ]
    run_elsewhere(listed, root)
    return Exported(
        pooled, tokens, others, root, {job: np.load(root / f"{job}.npy") for job in jobs}
    )


ASKED = {
    "num_inference_steps": 4,
    "guidance_scale": 1.5,
    "solver": "heun",
    "guidance_interval": [0.0, 1.0],
}


def card_of(generate: ImageGenerator) -> Any:
    encoders = {"vae": "shapes-vae", "text": "shapes-clip"}
    return lambda usage: card_of_weights(generate.denoiser.config, 1, encoders, "untrained", usage)


def run_elsewhere(jobs: list[dict[str, Any]], root: Path) -> None:
    (root / "jobs.json").write_text(json.dumps(jobs))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(root / "modules")}
    command = [sys.executable, "-I", load_exports.__file__, str(root / "jobs.json")]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def drawn_here(
    generate: ImageGenerator,
    sampling: SamplingSettings,
    prompts: Sequence[str],
    negative: str = "",
    seeds: Sequence[int] = SEEDS,
) -> NDArray[Any]:
    """A picture for each prompt, from noise of a seed of its own."""
    shape = generate.denoiser.config
    noise = torch.stack(
        [
            torch.randn(
                (shape.latent_channels, shape.latent_size, shape.latent_size),
                generator=torch.Generator().manual_seed(seed),
            )
            for seed in seeds
        ]
    )
    away_from = generate.text_encoder([negative]) if negative else None
    denoise = guided(generate.denoiser, sampling.guidance, sampling.guidance_interval, away_from)
    text = generate.text_encoder(prompts)
    latents = sample(sampling.solver, denoise, noise, text, noise_levels(sampling.steps))
    images: NDArray[Any] = generate.codec.decode(latents).permute(0, 2, 3, 1).numpy()
    return images


def here(config: EvaluateConfig = USUAL) -> SamplingSettings:
    return SamplingSettings(config.steps, config.guidance, config.solver, config.guidance_interval)


def test_the_same_seed_gives_the_same_picture(exported: Exported) -> None:
    expected = drawn_here(exported.pooled, here(), PROMPTS)
    assert expected.std() > 10
    assert np.array_equal(exported.results["usual"], expected)


def test_so_do_models_of_another_kind(exported: Exported) -> None:
    """Text by token, v, another scale of latents: both exports are loaded by one process, one after
    the other."""
    assert np.array_equal(
        exported.results["by token"], drawn_here(exported.tokens, here(), PROMPTS)
    )
    negative = drawn_here(exported.tokens, here(), PROMPTS, "a large green square, and more")
    assert np.array_equal(exported.results["negative"], negative)
    assert not np.array_equal(exported.results["negative"], exported.results["by token"])


@pytest.mark.parametrize("kind", ["decoder", "t5", *OTHER_VAES])
def test_so_do_models_with_other_encoders(kind: str, exported: Exported) -> None:
    expected = drawn_here(exported.others[kind], here(), PROMPTS)
    difference = np.abs(exported.results[kind].astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert not np.array_equal(expected[0], expected[1])


def test_a_call_says_how_to_sample(exported: Exported) -> None:
    expected = drawn_here(exported.pooled, SamplingSettings(4, 1.5, "heun"), PROMPTS[:1] * 2)
    assert np.array_equal(exported.results["asked"], expected)


def test_half_precision_draws_nearly_the_same(exported: Exported) -> None:
    difference = np.abs(
        exported.results["half"].astype(int) - exported.results["usual"].astype(int)
    )
    assert difference.mean() < 12  # of 255, of weights at random that amplify everything
    assert difference.max() > 0


def test_what_cannot_be_drawn_is_told_at_once(exported: Exported) -> None:
    message = str(exported.results["wrong"])
    assert "width 512: this model generates 64x64" in message
    assert "1 generators for 2 images" in message
    assert "'magic' is not one of dpmpp_2m" in message


def test_the_example_of_the_card_runs(exported: Exported) -> None:
    """It ran in the folder of the last job: four pictures, of which it saves that of seed 0."""
    expected = drawn_here(exported.pooled, here(), PROMPTS[:1] * 4, seeds=range(4))
    with Image.open(exported.folder / "pooled" / "picture.png") as image:
        assert np.array_equal(np.asarray(image), expected[0])


def test_the_code_is_ours_and_needs_none_of_ours() -> None:
    for module in ("pipeline.export.diffusers_pipeline", "pipeline.export.diffusers_transformer"):
        text = bundle_source(module)
        compile(text, module, "exec")
        assert "\nfrom tld_model" not in text
        assert "\nfrom pipeline" not in text
    assert "def solve_dpmpp_2m(" in bundle_source("pipeline.export.diffusers_pipeline")


def test_only_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    generate, out = untrained_generator(), tmp_path / "export"
    out.mkdir()  # an empty one is as good as none
    export_diffusers(generate, USUAL, card_of(generate), "first", out)
    export_diffusers(generate, USUAL, card_of(generate), "second", out)
    assert '"second"' in (out / "README.md").read_text()
    (out / ".git").mkdir()
    with pytest.raises(ExportError, match=r"contains \.git, which an export does not write"):
        check_target(out)
    other = tmp_path / "other"
    (other / "vae").mkdir(parents=True)
    with pytest.raises(ExportError, match="is not an earlier export"):
        check_target(other)
    with pytest.raises(ExportError, match="is a file"):
        check_target(out / "README.md")
    with pytest.raises(ExportError, match="there is no folder"):
        check_target(tmp_path / "nowhere" / "export")


def test_an_export_that_fails_leaves_all_as_it_was(tmp_path: Path) -> None:
    def no_card(_usage: Usage) -> str:
        raise RuntimeError("no card")

    generate, out = untrained_generator(), tmp_path / "export"
    export_diffusers(generate, USUAL, card_of(generate), "first", out)
    with pytest.raises(RuntimeError, match="no card"):
        export_diffusers(generate, USUAL, no_card, "second", out)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert '"first"' in (out / "README.md").read_text()
