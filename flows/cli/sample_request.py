"""Reading a request of `tld sample` from its command line and from the metadata of a PNG."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.text_files import TextFileError, read_text
from flows.cli import out_path
from flows.cli.model_source import ModelSource, resolve_model
from flows.cli.problems import Problems, attempt
from flows.cli.sample_options import SampleOptions
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.generate.request import SampleMetadata, SampleRequest

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_COUNT = 16  # images of a single prompt
_MOST_SHOWN = 5  # problems of a PNG that somebody else may have written
_MOST_IN_A_GRID = 400
_PLACEHOLDER = ("nothing",)  # stands for missing prompts while the other settings are checked


@dataclass(frozen=True, slots=True)
class SampleJob:
    """A valid request, the model that samples it, and where the images go."""

    request: SampleRequest
    recorded: SampleMetadata | None  # metadata of the PNG of --like
    source: ModelSource
    to_folder: bool


def read_job(
    config: Path,
    overrides: Sequence[str],
    settings: RunConfig,
    words: Sequence[str],
    options: SampleOptions,
) -> SampleJob:
    """Everything that `tld sample` was asked for. Raises Problems with all that is wrong."""
    lines, file_problems = attempt(read_prompt_file, options.prompts)
    size, size_problems = attempt(read_size, options.size)
    recorded, like_problems = attempt(read_recorded, options.like)
    changes = {
        "prompts": [*words, *(lines or [])] or (_PLACEHOLDER if file_problems else None),
        "negative": options.negative,
        "count": options.count,
        "seed": options.seed,
        "size": size,
        "steps": options.steps,
        "guidance": options.guidance,
        "solver": options.solver,
    }
    request, request_problems = None, tuple[str, ...]()
    if recorded or not options.like:
        request, request_problems = attempt(merge_request, changes, recorded, settings)
    to_folder = is_folder(options.out)
    source, model_problems = attempt(
        resolve_model, config, overrides, settings, options.model, options.ema
    )
    problems = [
        *file_problems,
        *size_problems,
        *like_problems,
        *request_problems,
        *out_problems(options.out, to_folder=to_folder),
        *(grid_problems(request) if request and not to_folder else []),
        *model_problems,
        *(size_misfit(request, source) if request and source else []),
    ]
    if problems or not request or not source:
        raise Problems(problems)
    return SampleJob(request, recorded, source, to_folder)


def read_prompt_file(file: Path | None) -> list[str]:
    """The prompts of a file, or of standard input: one per line, without empty lines. Raises
    UserError if there is none."""
    if file is None:
        return []
    try:
        text = sys.stdin.read() if str(file) == "-" else read_text(file)
    except (TextFileError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts: {error}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"--prompts: {file} contains no prompt; write one per line")
    return lines


def read_size(size: str | None) -> tuple[int, int] | None:
    """Width and height of WIDTHxHEIGHT. Raises UserError if it is something else."""
    if size is None:
        return None
    if not (match := _SIZE.fullmatch(size)):
        raise UserError(f"--size: must look like 128x64, width and height in pixels, got {size!r}")
    return int(match[1]), int(match[2])


def read_recorded(like: Path | None) -> SampleMetadata | None:
    """The metadata of a PNG of `tld sample`, which somebody else may have written. Raises
    UserError or Problems if it cannot be repeated."""
    if like is None:
        return None
    from pydantic import ValidationError

    from pipeline.generate.png_metadata import ImageFileError, read_settings
    from pipeline.generate.request import SampleMetadata, problems_of

    try:
        metadata = read_settings(like)
        if "drawing" in metadata:
            return SampleMetadata.model_validate(metadata)
    except ImageFileError as error:
        raise UserError(f"--like: {error}") from error
    except ValidationError as error:
        lines = [f"{place}: {problem}" for place, problem in problems_of(error)]
        raise Problems(
            [
                f"--like: the metadata of {like} is invalid: {_printable(line)}"
                for line in lines[:_MOST_SHOWN]
            ]
        ) from error
    raise UserError(
        f"--like: {like} has no metadata of tld sample (no 'drawing' entry), so it cannot be "
        "repeated"
    )


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:300])


def merge_request(
    changes: dict[str, Any], recorded: SampleMetadata | None, settings: RunConfig
) -> SampleRequest:
    """The options that are set, over the recorded request or the defaults of the run. Raises
    Problems."""
    from pydantic import ValidationError

    from pipeline.generate.request import SampleRequest, problems_of

    changed = {name: value for name, value in changes.items() if value is not None}
    if recorded:
        base: dict[str, Any] = recorded.drawing.model_dump()
    else:
        single = len(changed.get("prompts", ())) == 1
        base = {"count": _COUNT if single else 1, "seed": 0, **asdict(settings.evaluate.sampling)}
    merged, problems = base | changed, []
    if "prompts" not in merged:
        problems.append(
            'no prompt; write one in quotes, tld sample CONFIG "a red star", or use --prompts FILE'
        )
        merged["prompts"] = _PLACEHOLDER
    try:
        request = SampleRequest.model_validate(merged)
    except ValidationError as error:
        problems += [f"{_option(place)}{problem}" for place, problem in problems_of(error)]
    if problems:
        raise Problems(problems)
    return request


def _option(place: str) -> str:
    """prompts.3 -> 'prompt 4: '; seed -> '--seed: '"""
    name, _, rest = place.partition(".")
    if name == "prompts" and rest.isdigit():
        return f"prompt {int(rest) + 1}: "
    return f"--{name}: " if name else ""


def size_misfit(request: SampleRequest, source: ModelSource) -> list[str]:
    """Why a model cannot sample at the requested size, as far as its files show before it is
    loaded. Raises CheckpointError."""
    from pipeline.generate.generator import size_problem
    from tld_model.checkpoint import read_config
    from tld_model.encoders.config_files import vae_downscale

    downscale = vae_downscale(source.vae)
    if request.size is None or downscale is None:
        return []
    problem = size_problem(request.size, downscale * read_config(source.denoiser).patch_size)
    return [f"--size: {problem}"] if problem else []


def is_folder(out: Path) -> bool:
    """Whether --out is a folder, which gets one PNG per image."""
    return not out.suffix or out_path.is_folder(out)


def out_problems(out: Path, *, to_folder: bool) -> list[str]:
    """Why images cannot be written to --out."""
    if to_folder:
        return out_path.folder_problems(out)
    problems = out_path.file_problems(out)
    if out.suffix.lower() != ".png":
        problems.insert(
            0, f"--out: must be FILE.png for a grid, or a folder for one PNG per image, got {out}"
        )
    return problems


def grid_problems(request: SampleRequest) -> list[str]:
    """Why the images of a request do not fit into one grid."""
    count = len(request.captions)
    if count <= _MOST_IN_A_GRID:
        return []
    return [f"--out: a grid holds up to {_MOST_IN_A_GRID} images, not {count}; name a folder"]
