"""`tld interpolate`, `tld edit` and `tld panorama` as a user runs them, with a model that never
learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from flows.cli.app import app
from flows.terminal.console import prompts_and_overrides
from flows.terminal.errors import UserError
from pipeline.generate.png_metadata import read_metadata
from pipeline.generate.tiling import WindowError
from tests.support.command import tld
from tests.support.small import TINY
from tests.support.untrained import untrained_generator
from tld_model.checkpoint import save_denoiser
from tld_model.config import SamplingSettings

pytestmark = pytest.mark.slow

ENCODERS = {"vae": "shapes-vae", "clip": "shapes-clip"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a picture, a mask of its right half and one of another size."""
    folder = tmp_path_factory.mktemp("edit")
    denoiser = untrained_generator().denoiser
    (folder / "model").mkdir()
    save_denoiser(
        folder / "model" / "denoiser.safetensors", denoiser.state_dict(), denoiser.config, ENCODERS
    )
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        folder / "in.png"
    )
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(mask[:32]).save(folder / "other.png")
    return folder


def draw(folder: Path, command: str, *words: str | Path, ending: str = ".png") -> Path:
    """Run a command in this process, since another would take seconds to import torch."""
    out = folder / f"{command}{ending}"
    out.unlink(missing_ok=True)
    options = ("--model", folder / "model", "--steps", "2", "--out", out, f"root={folder / 'none'}")
    run(command, TINY, *words, *options)
    return out


def run(*words: str | Path) -> None:
    app([str(word) for word in words], exit_on_error=False, result_action="return_value")


def recorded(path: Path) -> Any:
    return read_metadata(path, SamplingSettings()).request


def pixels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def test_interpolate_writes_a_strip_with_its_settings_and_a_moving_picture(folder: Path) -> None:
    out = draw(folder, "interpolate", "a star", "a circle", "--to-seed", "3", "--frames", "4")
    assert pixels(out).shape == (64, 4 * 64, 3)
    request = recorded(out)
    assert (request.ends, request.seeds, request.steps) == (("a star", "a circle"), (0, 3), 2)
    with Image.open(
        draw(folder, "interpolate", "a star", "--to-seed", "3", "--frames", "3", ending=".gif")
    ) as gif:
        assert gif.n_frames == 4  # type: ignore[attr-defined]


def test_edit_changes_all_or_a_part_or_paints_on(folder: Path) -> None:
    original = pixels(folder / "in.png")
    out = draw(folder, "edit", folder / "in.png", "a star", "--mask", folder / "mask.png")
    changed, request = pixels(out), recorded(out)
    np.testing.assert_array_equal(changed[:, :32], original[:, :32])
    assert (changed[:, 32:] != original[:, 32:]).mean() > 0.5
    assert request.strength == 1
    assert request.image.name == "in.png"
    assert str(folder) not in str(read_metadata(out, SamplingSettings())), "it may go to strangers"
    out = draw(folder, "edit", folder / "in.png", "a star")
    assert (pixels(out)[:, :32] != original[:, :32]).mean() > 0.5
    assert recorded(out).strength == 0.7
    grown = pixels(
        draw(folder, "edit", folder / "in.png", "a star", "--outpaint", "left=16,bottom=8")
    )
    assert grown.shape == (72, 80, 3)
    np.testing.assert_array_equal(grown[:64, 16:], original)


def test_a_panorama_has_a_prompt_for_each_window_and_may_go_on_from_a_picture(folder: Path) -> None:
    out = draw(folder, "panorama", "a star", "a circle", "--windows", "3", "--overlap", "24")
    assert pixels(out).shape == (64, 64 + 2 * 40, 3)
    assert (recorded(out).captions, recorded(out).overlap) == (
        ["a star", "a circle", "a circle"],
        24,
    )
    wide = pixels(
        draw(folder, "panorama", "a star", "--windows", "1", "--picture", folder / "in.png")
    )
    assert wide.shape == (64, 64 + 40, 3)
    np.testing.assert_array_equal(wide[:, :64], pixels(folder / "in.png"))


def test_what_cannot_be_drawn_is_told_all_at_once(folder: Path) -> None:
    image, model = folder / "in.png", ("--model", folder / "model")
    ends = "--steps: Input should be greater than or equal to 1|is empty|.png or .gif or .mp4"
    ends += "|--frames: Input should be greater than or equal to 2"
    both = (
        "--strength: Input should be less than or equal to 1, got 2|--outpaint: goes with neither"
    )
    both += "|no folder|there is no file gone.png|'up=3' is not a side|no model has been trained"
    overlap = ("--outpaint", "top=8", "--overlap", "64")
    mistakes: list[tuple[str, *tuple[str | Path, ...]]] = [
        (ends, "interpolate", TINY, " ", "--steps", "0", "--frames", "1", "--out", "x.txt"),
        ("one or two prompts; write each in quotes", "interpolate", TINY, "a", "b", "c"),
        ("both ends are the same image", "interpolate", TINY, "a", *model),
        ("no prompt; write one|no image; name the file", "edit", TINY, *model),
        ("no prompt; write one|--windows: Input", "panorama", TINY, "--windows", "0", *model),
        (
            both,
            "edit",
            TINY,
            "gone.png",
            "a",
            "--strength",
            "2",
            "--outpaint",
            "up=3",
            "--out",
            folder / "gone" / "x.png",
        ),
        ("overlap by 1 to 63, got 64", "edit", TINY, image, "a star", *overlap, *model),
        ("leave none of 2 prompts out, got 1", "panorama", TINY, "a", "b", "--windows", "1"),
    ]
    for says, *words in mistakes:
        with pytest.raises((UserError, WindowError)) as refused:
            run(*words)
        assert all(part in str(refused.value) for part in says.split("|")), refused.value


def test_a_picture_that_does_not_fit_is_the_users_mistake(folder: Path) -> None:
    options = ("--mask", folder / "other.png", "--model", folder / "model")
    done = tld("edit", TINY, folder / "in.png", "a star", *options)
    assert done.returncode == 2, done.stderr
    assert (
        done.stderr
        == "tld: the mask has 64 x 32 pixels and the image 64 x 64; make them the same size\n"
    )


def test_words_that_change_a_setting_are_no_prompts() -> None:
    words = ["a circle", "root=data", "evaluate.steps=4", "e = mc2", "train.ema_decay=[0.9]"]
    assert prompts_and_overrides(words) == (
        ["a circle", "e = mc2"],
        ["root=data", "evaluate.steps=4", "train.ema_decay=[0.9]"],
    )
