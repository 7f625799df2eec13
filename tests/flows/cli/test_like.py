"""`--like` of all commands: exact repeats, settings of another command, files of earlier versions,
and files of strangers."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from pipeline.generate.png_metadata import ENTRY, read_metadata
from tests.flows.cli.test_sample import save_model
from tests.pipeline.generate.test_earlier_metadata import FORMAT_1
from tests.support.fuzz import check_explained, run_tld
from tests.support.small import TINY
from tld_model.config import SamplingSettings

STAR, RING = "a small red star", "a blue ring"
IN, MASK = FORMAT_1 / "in.png", FORMAT_1 / "mask.png"
Run = Callable[..., str]

# Words that ask for an image, and the input files that its repeat needs too.
COMMANDS: dict[str, tuple[list[object], list[object]]] = {
    "sample": ([STAR, RING, "--count", 2, "--seed", 3, "--negative", "a square"], []),
    "edit": ([IN, STAR, "--seed", 3], [IN]),
    "edit with a strength": ([IN, STAR, "--strength", 0.4], [IN]),
    "edit with a mask": ([IN, STAR, "--mask", MASK, "--solver", "heun"], [IN, "--mask", MASK]),
    "edit outwards": ([IN, STAR, "--outpaint", "left=9,top=7", "--overlap", 30], [IN]),
    "interpolate": ([STAR, RING, "--to-seed", 4, "--frames", 3], []),
    "interpolate seeds": ([STAR, "--seed", 2, "--to-seed", 4, "--frames", 2], []),
    "panorama": ([STAR, RING, "--windows", 3, "--overlap", 20], []),
    "panorama of an image": ([STAR, "--windows", 1, "--picture", IN], ["--picture", IN]),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "denoiser.safetensors", 1)


@pytest.fixture
def run(model: Path, tmp_path: Path) -> Run:
    """A command with that model, in this process; it returns what was printed."""

    def run(command: str, *words: object, code: int = 0, model: Path = model) -> str:
        # The stored examples were computed in fp32.
        settings = (f"root={tmp_path / 'none'}", "evaluate.device=cpu", "evaluate.precision=fp32")
        options = (*settings, "--model", model)
        ended = run_tld(command.partition(" ")[0], TINY, *words, *options)
        check_explained(ended)
        assert ended.code == code, ended.output
        return ended.output

    return run


def pixels(path: Path) -> NDArray[np.int64]:
    return np.asarray(Image.open(path)).astype(int)


def request_of(path: Path) -> Any:
    return read_metadata(path, SamplingSettings()).request


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_of_the_same_command_is_repeated_to_the_bit(
    run: Run, command: str, tmp_path: Path
) -> None:
    first, again, changed = (tmp_path / name for name in ("first.png", "again.png", "changed.png"))
    words, inputs = COMMANDS[command]
    run(command, *words, "--steps", 3, "--guidance", 2, "--out", first)
    output = run(command, *inputs, "--like", first, "--out", again)
    assert "are taken" not in output
    assert again.read_bytes() == first.read_bytes()
    run(command, *inputs, "evaluate.steps=7", "--like", first, "--steps", 2, "--out", changed)
    assert request_of(changed) == request_of(first).model_copy(update={"steps": 2})
    assert (pixels(changed) != pixels(first)).any()


@pytest.mark.parametrize(
    ("maker", "user"), [*permutations(["sample", "edit", "interpolate", "panorama"], 2)]
)
def test_of_another_command_prompts_seed_and_sampling_are_taken(
    run: Run, maker: str, user: str, tmp_path: Path
) -> None:
    shared = ["--steps", 2, "--guidance", 2.5, "--solver", "euler", "--negative", "a square"]
    shared += ["--seed", 5, "--out", tmp_path / "made.png"]
    needed: dict[str, list[object]] = {
        "edit": [IN],
        "interpolate": ["--to-seed", 6, "--frames", 2],
    }
    own: dict[str, list[object]] = {"sample": ["--count", 2], "panorama": ["--windows", 1]}
    run(maker, *needed.get(maker, []), *own.get(maker, []), STAR, *shared)
    used = tmp_path / "used.png"
    words = [*needed.get(user, []), *own.get(user, [])]
    output = run(user, *words, "--like", tmp_path / "made.png", "--out", used)
    assert f"is of tld {maker}: its prompts, negative prompt, seed and" in " ".join(output.split())
    request = request_of(used)
    assert (request.command, request.prompts, request.negative, request.seed) == (
        *(user, (STAR,), "a square", 5),
    )
    assert request.sampling == SamplingSettings(2, 2.5, "euler")


def test_more_prompts_than_a_command_takes_are_refused_unless_others_are_named(
    run: Run, tmp_path: Path
) -> None:
    made, used = tmp_path / "made.png", tmp_path / "used.png"
    run("sample", STAR, RING, "--steps", 1, "--out", made)
    assert "one prompt; write it" in run("edit", IN, "--like", made, "--out", used, code=2)
    run("edit", IN, RING, "--like", made, "--out", used)
    assert request_of(used).prompts == (RING,)


def test_an_input_file_must_be_named_and_be_the_same(run: Run, tmp_path: Path) -> None:
    made, used = tmp_path / "made.png", tmp_path / "used.png"
    options = ("--like", made, "--out", used)
    other = tmp_path / "other.png"
    Image.fromarray(np.rot90(np.asarray(Image.open(IN)))).save(other)

    run("edit", IN, STAR, "--mask", MASK, "--steps", 1, "--out", made)
    assert "was made from 'in.png'" in run("edit", *options, "--mask", MASK, code=2)
    assert "name that file as --mask" in run("edit", IN, *options, code=2)
    output = run("edit", other, *options, "--mask", IN, code=2)
    assert "but PICTURE is 'other.png'" in output
    assert "but --mask is 'in.png'" in output
    assert not used.exists()
    run("edit", other, *options, "--mask", MASK, "--other-image")
    assert request_of(used).image.name == "other.png"
    copy = tmp_path / "a=copy.png"
    copy.write_bytes(IN.read_bytes())
    run("edit", copy, *options, "--mask", MASK)
    np.testing.assert_array_equal(pixels(used), pixels(made))

    run("panorama", STAR, "--picture", IN, "--windows", 1, "--steps", 1, "--out", made)
    assert "name that file as --picture" in run("panorama", *options, code=2)
    output = run("panorama", *options, "--picture", other, code=2)
    assert "but --picture is 'other.png'" in output
    run("panorama", *options, "--picture", other, "--other-image")


def test_options_of_another_kind_of_edit_replace_the_recorded_kind(
    run: Run, tmp_path: Path
) -> None:
    painted, grown, used = (tmp_path / name for name in ("painted.png", "grown.png", "used.png"))
    run("edit", IN, STAR, "--mask", MASK, "--strength", 0.5, "--steps", 1, "--out", painted)
    run("edit", IN, "--like", painted, "--outpaint", "right=8", "--out", grown)
    request = request_of(grown)
    assert (request.mask, request.strength, request.outpaint.right) == (None, None, 8)
    run("edit", IN, "--like", grown, "--strength", 0.5, "--out", used)
    request = request_of(used)
    assert (request.strength, request.outpaint, request.overlap) == (0.5, None, None)


@pytest.mark.parametrize("command", ["sample", "edit", "interpolate", "panorama"])
def test_another_model_is_refused_unless_it_is_wanted(
    run: Run, command: str, tmp_path: Path
) -> None:
    words, inputs = COMMANDS[command]
    other = save_model(tmp_path / "d.safetensors", 2)
    options = ("--like", tmp_path / "made.png", "--out", tmp_path / "used.png")
    run(command, *words, "--steps", 1, "--out", tmp_path / "made.png")
    output = run(command, *inputs, *options, "--seed", -1, model=other, code=2)
    assert "made with another model: model 'denoiser.safetensors'" in output
    assert "--seed: " in output, "all problems at once"
    run(command, *inputs, *options, "--other-model", model=other)
    assert (pixels(tmp_path / "used.png") != pixels(tmp_path / "made.png")).any()


def test_a_frame_of_the_service_is_repeated_alone(run: Run, tmp_path: Path) -> None:
    strip, one, out = tmp_path / "strip.png", tmp_path / "frame.png", tmp_path / "out.png"
    run("interpolate", STAR, RING, "--frames", 3, "--steps", 2, "--out", strip)
    _store(one, _changed(strip, {"frame": 1}))
    run("interpolate", "--like", one, "--out", out)
    np.testing.assert_array_equal(pixels(out), pixels(strip)[:, 64:128])
    run("interpolate", "--like", one, "--frames", 3, "--out", out)
    np.testing.assert_array_equal(pixels(out), pixels(strip))


FORMER = [  # files of 0.1.0, the command that repeats them, and the input files
    ("sample", "sample", ()),
    ("grid", "sample", ()),
    ("edit", "edit", (IN,)),
    ("inpaint", "edit", (IN, "--mask", MASK)),
    ("outpaint", "edit", (IN,)),
    ("interpolation", "interpolate", ()),
    ("panorama", "panorama", ()),
    ("continued", "panorama", ("--picture", IN)),
    ("served", "sample", ()),
]


@pytest.mark.parametrize(("name", "command", "inputs"), FORMER)
def test_files_of_an_earlier_version_are_repeated(
    run: Run, name: str, command: str, inputs: tuple[object, ...], tmp_path: Path
) -> None:
    stored, out = FORMAT_1 / f"{name}.png", tmp_path / "out.png"
    # Another processor than theirs may have drawn other weights, and rounds otherwise.
    output = run(command, *inputs, "--like", stored, "--other-model", "--out", out)
    assert np.abs(pixels(out) - pixels(stored)).max() <= 2
    assert ("of a service of an earlier version" in " ".join(output.split())) == (name == "served")


def test_a_file_in_the_former_form_is_repeated_to_the_bit(run: Run, tmp_path: Path) -> None:
    first, former, again = (tmp_path / name for name in ("first.png", "former.png", "again.png"))
    run("sample", STAR, "--count", 2, "--steps", 2, "--out", first)
    stored = _stored(first)
    request = stored["request"]
    del request["command"]
    _store(former, {"drawing": request, "layout": request.pop("layout"), **stored["origin"]})
    run("sample", "--like", former, "--out", again)
    assert again.read_bytes() == first.read_bytes()


def _changed(path: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a PNG with other fields in its request."""
    stored = _stored(path)
    return {**stored, "request": {**stored["request"], **changes}}


def _stored(path: Path) -> dict[str, Any]:
    with Image.open(path) as image:
        stored: dict[str, Any] = json.loads(image.info[ENTRY])
    return stored


def _store(path: Path, metadata: object) -> None:
    entries = PngImagePlugin.PngInfo()
    entries.add_itxt(ENTRY, json.dumps(metadata))
    Image.new("RGB", (8, 8)).save(path, pnginfo=entries)


STRANGE: list[tuple[dict[str, Any], str]] = [
    ({"steps": 10**9}, "steps: Input should be less than or equal to 10000, got 1000000000"),
    ({"prompts": ["x" * 3000]}, "prompts.0: String should have at most 2000 characters"),
    ({"prompts": []}, "prompts: there is no prompt"),
    ({"guidance": "NaN"}, "guidance: "),
    ({"guidance": float("nan")}, "guidance: "),
    ({"seed": [[[[[[[[[]]]]]]]]]}, "seed: "),
    ({"seed": -1}, "seed: "),
    ({"negative": {"a": "b"}}, "negative: "),
    ({"model\x1b]0;gone": 1}, "model?]0;gone: Extra inputs are not permitted"),
    ({"command": "\x1b[2J" * 1000}, "request: the command must be one of 'sample', 'edit', "),
]
STRANGE_OF: dict[str, list[tuple[dict[str, Any], str]]] = {
    "sample": [
        ({"size": [10**6, 64]}, "size.0"),
        ({"prompts": ["a"] * 900, "count": 900}, "900 prompts × 900 are 810000 images"),
    ],
    "edit": [
        ({"image": "/etc/passwd"}, "image: "),
        ({"image": {"name": "\x1b" * 400, "sha256": ""}}, "image.name: "),
        ({"strength": 10**400}, "strength: "),
        ({"outpaint": {"left": 10**9}}, "outpaint.left: "),
    ],
    "interpolate": [({"frames": 10**9}, "frames: "), ({"frame": 7}, "frame: ")],
    "panorama": [({"windows": 10**9}, "windows: "), ({"overlap": "wide"}, "overlap: ")],
}


@pytest.mark.parametrize("command", STRANGE_OF)
def test_what_a_strangers_image_tells_is_checked(run: Run, command: str, tmp_path: Path) -> None:
    made, stranger, out = (tmp_path / name for name in ("made.png", "stranger.png", "out.png"))
    words, inputs = COMMANDS[command]
    run(command, *words, "--steps", 1, "--out", made)
    for changes, says in [*STRANGE, *STRANGE_OF[command]]:
        _store(stranger, _changed(made, changes))
        output = run(command, *inputs, "--like", stranger, "--out", out, code=2)
        assert says in output, output
        assert output.replace("\n", "").isprintable()
        assert len(output) < 2500
        assert not out.exists()


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"prompt": STAR}, "holds no request of an image of tld"),
        ([], "holds no request of an image of tld"),
        ({"request": {}, "origin": {}}, "origin.model: Field required"),
        ({"request": 7, "origin": 7}, "request: "),
        ({"drawing": {"steps": {}}}, "request.sample.steps: "),
    ],
)
def test_what_is_no_metadata_is_refused(
    run: Run, metadata: object, says: str, tmp_path: Path
) -> None:
    _store(tmp_path / "stranger.png", metadata)
    for command in STRANGE_OF:
        output = run(command, "--like", tmp_path / "stranger.png", code=2)
        assert says in output, output
        assert "no prompt" not in output, "a readable file would have had one"
        assert "same image" not in output


def test_an_animation_has_nothing_to_be_repeated(run: Run, tmp_path: Path) -> None:
    gif = tmp_path / "morph.gif"
    run("interpolate", STAR, "--to-seed", 1, "--frames", 2, "--steps", 1, "--out", gif)
    output = run("interpolate", "--like", gif, code=2)
    assert "is an animation, which holds no metadata; only PNG files do" in output
