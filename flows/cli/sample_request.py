"""What `tld sample` is asked for, from the command line and from a picture: read, put together,
every problem told."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.text_files import TextFileError, read_text
from flows.cli import out_path

if TYPE_CHECKING:
    from flows.cli.model_source import ModelSource
    from pipeline.config.run import RunConfig
    from pipeline.generate.request import SampleMetadata, SampleRequest

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_COUNT = 16  # of a single prompt
_MOST_SHOWN = 5  # problems of a stranger's picture


def read_prompts(words: Sequence[str], file: Path | None, problems: list[str]) -> list[str]:
    """Prompts of the command line, then those of a file, or of standard input: one a line, empty
    ones left out."""
    if file is None:
        return list(words)
    try:
        text = sys.stdin.read() if str(file) == "-" else read_text(file)
    except (TextFileError, UnicodeDecodeError) as error:
        problems.append(f"--prompts: {error}")
        return list(words)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        problems.append(f"--prompts: {file} holds no prompt; write one a line")
    return [*words, *lines]


def read_size(size: str | None, problems: list[str]) -> tuple[int, int] | None:
    """Width and height of WxH."""
    if size is None:
        return None
    if not (found := _SIZE.fullmatch(size)):
        problems.append(f"--size: looks like 128x64, width and height in pixels, got {size!r}")
        return None
    return int(found[1]), int(found[2])


def read_image(like: Path | None, problems: list[str]) -> SampleMetadata | None:
    """How a picture was made, which a stranger may have written."""
    if like is None:
        return None
    from pydantic import ValidationError

    from pipeline.generate.png_metadata import ImageFileError, read_settings
    from pipeline.generate.request import SampleMetadata, problems_of

    try:
        told = read_settings(like)
        if "drawing" in told:
            return SampleMetadata.model_validate(told)
        problems.append(
            f"--like: {like} was made otherwise than by tld sample: it tells no 'drawing'"
        )
    except ImageFileError as error:
        problems.append(f"--like: {error}")
    except ValidationError as error:
        wrong = [f"{where}: {what}" for where, what in problems_of(error)]
        problems += [f"--like: {like} tells {_printable(one)}" for one in wrong[:_MOST_SHOWN]]
    return None


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:300])


def merge_request(
    given: dict[str, Any], before: SampleMetadata | None, settings: RunConfig, problems: list[str]
) -> SampleRequest | None:
    """What is given on the command line over what the picture tells, or over the run's own ways to
    draw."""
    from pydantic import ValidationError

    from pipeline.generate.request import SampleRequest, problems_of

    changed = {name: value for name, value in given.items() if value is not None}
    if before:
        base: dict[str, Any] = before.drawing.model_dump()
    else:
        one = len(changed.get("prompts", ())) == 1
        base = {"count": _COUNT if one else 1, "seed": 0, **asdict(settings.evaluate.sampling)}
    told = base | changed
    if "prompts" not in told:
        if not any(problem.startswith("--prompts") for problem in problems):
            problems.append(
                "no prompt: say what the pictures show, in quotes, or with --prompts FILE"
            )
        told["prompts"] = ("nothing",)  # for the sake of the other problems
    try:
        return SampleRequest.model_validate(told)
    except ValidationError as error:
        problems += [f"{_option(where)}{what}" for where, what in problems_of(error)]
    return None


def _option(where: str) -> str:
    """prompts.3 -> 'prompt 4: '; seed -> '--seed: '"""
    name, _, rest = where.partition(".")
    if name == "prompts" and rest.isdigit():
        return f"prompt {int(rest) + 1}: "
    return f"--{name}: " if name else ""


def size_misfit(drawing: SampleRequest, chosen: ModelSource) -> list[str]:
    """Why a model cannot draw at this size, as far as its files tell before it is loaded. Raises
    CheckpointError."""
    from pipeline.generate.generator import size_problem
    from tld_model.checkpoint import read_config
    from tld_model.encoders.config_files import vae_downscale

    downscale = vae_downscale(chosen.vae)
    if drawing.size is None or downscale is None:
        return []
    problem = size_problem(drawing.size, downscale * read_config(chosen.denoiser).patch_size)
    return [f"--size: {problem}"] if problem else []


def is_folder(out: Path, problems: list[str]) -> bool:
    """Whether pictures go into a folder, each as a file of its own."""
    folder = not out.suffix or out_path.is_folder(out)
    if not folder and out.suffix.lower() != ".png":
        problems.append(
            f"--out: is FILE.png for a grid, or a folder for a PNG of each picture, got {out}"
        )
    problems += out_path.folder_problems(out) if folder else out_path.file_problems(out)
    return folder
