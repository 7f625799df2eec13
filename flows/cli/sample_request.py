"""Reading a request of `tld sample` from its command line."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_catalog.text_files import TextFileError, read_text
from flows.cli import out_path
from flows.cli.like import Basis
from flows.cli.problems import attempt, refuse
from flows.cli.sample_options import SampleOptions
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from pipeline.generate.model_source import ModelSource
    from pipeline.generate.request import SampleRequest

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_COUNT = 16  # images of a single prompt
_MOST_IN_A_GRID = 400
_NO_PROMPT = (
    'no prompt; write one in quotes, tld sample CONFIG "a red star", or use --prompts FILE, or '
    "--like PNG"
)


def read_request(
    basis: Basis, words: Sequence[str], options: SampleOptions, *, to_folder: bool
) -> SampleRequest:
    """The request of the command line. Raises Problems with all that is wrong."""
    from pipeline.generate.request import SampleRequest

    lines, file_problems = attempt(read_prompt_file, options.prompts)
    size, size_problems = attempt(read_size, options.size)
    changes = {
        "prompts": [*words, *(lines or [])] or None,
        "negative": options.negative,
        "count": options.count,
        "seed": options.seed,
        "size": size,
        "steps": options.steps,
        "guidance": options.guidance,
        "solver": options.solver,
    }
    fields = basis.fields(SampleRequest, changes)
    fields.setdefault("count", 1 if len(fields.get("prompts", ())) > 1 else _COUNT)
    request, problems = basis.validate(
        SampleRequest, fields, {"prompts": "" if file_problems else _NO_PROMPT}
    )
    if basis.source and not any(problem.startswith("--size") for problem in problems):
        problems += size_misfit(fields.get("size"), basis.source)
    if request and not to_folder:
        problems += grid_problems(request)
    refuse(
        [
            *file_problems,
            *size_problems,
            *problems,
            *out_problems(options.out, to_folder=to_folder),
            *basis.problems,
        ]
    )
    assert request
    # The repeat of a single image is a single image, not a grid.
    is_single = request.layout == "picture" and len(request.captions) == 1
    return request.model_copy(update={"layout": "picture" if is_single else "grid"})


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


def size_misfit(size: tuple[int, int] | None, source: ModelSource) -> list[str]:
    """Why a model cannot sample at a size, as far as its files show before it is
    loaded. Raises CheckpointError."""
    from pipeline.generate.image_size import size_problem
    from tld_model.checkpoint import read_config
    from tld_model.encoders.config_files import vae_downscale

    downscale = vae_downscale(source.vae)
    if size is None or downscale is None:
        return []
    problem = size_problem(size, downscale * read_config(source.denoiser).patch_size)
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
