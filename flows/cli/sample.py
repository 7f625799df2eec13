"""`tld sample`: pictures of prompts, and the same pictures again."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.groups import Config
from flows.cli.model_source import Model, resolve_model
from flows.cli.sample_request import (
    is_folder,
    merge_request,
    read_image,
    read_prompts,
    read_size,
    size_misfit,
)
from flows.terminal.console import console, load, prompts_and_overrides
from flows.terminal.errors import UserError
from tld_model.config import SolverName

if TYPE_CHECKING:
    from flows.terminal.progress import Progress
    from pipeline.generate.generator import ImageGenerator
    from pipeline.generate.request import ModelIdentity, SampleMetadata, SampleRequest

_MOST_IN_A_GRID = 400


def sample(
    config: Config,
    *words: Annotated[
        str,
        Parameter(
            help="What to draw: a prompt in quotes, or several; and settings to change, as section.key=value."
        ),
    ],
    prompts: Annotated[
        Path | None,
        Parameter(
            help="Text file with a prompt a line; - reads standard input.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    count: Annotated[
        int | None,
        Parameter(
            help="Pictures of each prompt; without it 16 of a single one, 1 of each of several."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        Parameter(help="Of the noise: picture i of each prompt is that of seed + i; or 0."),
    ] = None,
    steps: Annotated[
        int | None, Parameter(help="Sampling steps; evaluate.steps without it.")
    ] = None,
    guidance: Annotated[
        float | None, Parameter(help="Guidance scale, 1 is none; evaluate.guidance without it.")
    ] = None,
    solver: Annotated[
        SolverName | None,
        Parameter(
            help="evaluate.solver without it; heun asks the model twice a step; euler and ddim are the same."
        ),
    ] = None,
    size: Annotated[
        str | None,
        Parameter(
            help="Width and height in pixels, like 768x512; without it those of the training. Learned positions are "
            "interpolated; far from the training's size pictures get worse."
        ),
    ] = None,
    negative: Annotated[str | None, Parameter(help="What the pictures should not show.")] = None,
    model: Model = None,
    ema: Annotated[
        int | None,
        Parameter(
            help="Which average of train.ema_decay to draw with, from 0; evaluate.ema without it."
        ),
    ] = None,
    like: Annotated[
        Path | None,
        Parameter(
            help="Repeat this PNG of tld sample: prompts, seeds, size and all; an option beside it changes only "
            "that. CONFIG and --model say where the model is, as ever."
        ),
    ] = None,
    other_model: Annotated[
        bool,
        Parameter(
            negative="", help="With --like: draw although the model is not that of the picture."
        ),
    ] = False,
    out: Annotated[
        Path,
        Parameter(
            help="FILE.png: all pictures in a grid over their prompts. FOLDER: a PNG for each picture."
        ),
    ] = Path("sample.png"),
) -> None:
    """Draw pictures of prompts with the trained model of this run, or another.

    Each PNG tells in its metadata how it was made; --like repeats it, to the bit on the same
    machine. For example:

    tld sample conf/tiny.yaml "a small red star" --seed 7 --size 128x64 --out star.png

    tld sample conf/tiny.yaml --prompts captions.txt --negative "a circle" --out pictures/

    tld sample conf/tiny.yaml --like star.png --steps 50 --out slower.png
    """
    said, overrides = prompts_and_overrides(words)
    settings = load(config, overrides)
    problems: list[str] = []
    given = {
        "prompts": read_prompts(said, prompts, problems) or None,
        "negative": negative,
        "count": count,
        "seed": seed,
        "size": read_size(size, problems),
        "steps": steps,
        "guidance": guidance,
        "solver": solver,
    }
    before = read_image(like, problems)
    drawing = merge_request(given, before, settings, problems) if before or not like else None
    folder, chosen = is_folder(out, problems), None
    if drawing and not folder and len(drawing.captions) > _MOST_IN_A_GRID:
        problems.append(
            f"--out: a grid holds up to {_MOST_IN_A_GRID} pictures, not {len(drawing.captions)}; "
            "name a folder"
        )
    try:
        chosen = resolve_model(config, overrides, settings, model, ema)
        problems += size_misfit(drawing, chosen) if drawing else []
    except UserError as mistake:
        problems.append(str(mistake).removeprefix("cannot draw:").strip())
    if problems or not chosen or not drawing:
        raise UserError("cannot draw:\n" + "\n".join(f"  {problem}" for problem in problems))

    identity = chosen.identity()
    if before and not other_model:
        _check_model(before.model, identity)
    _draw(drawing, chosen.load(settings.evaluate.device), identity, before, out, folder)
    console.print(
        f"{len(drawing.captions)} sample{'s' if len(drawing.captions) > 1 else ''}: {out}"
    )


def _check_model(before: ModelIdentity, identity: ModelIdentity) -> None:
    """Raise UserError where a picture was drawn with another model."""
    if differences := before.differences(identity):
        raise UserError(
            "the picture was drawn with another model:\n"
            + "\n".join(f"  {difference}" for difference in differences)
            + "\nName that one by CONFIG and its settings, --ema or --model; or draw with this one: --other-model"
        )


def _draw(
    drawing: SampleRequest,
    generate: ImageGenerator,
    by: ModelIdentity,
    before: SampleMetadata | None,
    out: Path,
    folder: bool,
) -> None:
    """Draw and write; like a picture that was no grid, a single one is none either."""
    from flows.terminal.progress import Progress
    from pipeline.generate.generator import SizeError
    from pipeline.generate.png_metadata import ImageFileError
    from pipeline.generate.write_images import ImageWriter

    artist = ImageWriter(generate, by)
    plain = before is not None and before.layout == "picture" and len(drawing.captions) == 1
    try:
        with Progress("sample") as show:
            if before and before.device != artist.device:
                show.finish(
                    f"the picture was drawn on a {before.device}; this {artist.device} rounds "
                    "otherwise"
                )
            tell = partial(_tell, show, len(drawing.captions))
            if folder:
                artist.to_folder(drawing, out, tell)
            else:
                artist.to_file(drawing, out, "picture" if plain else "grid", tell)
    except (SizeError, ImageFileError) as error:
        raise UserError(str(error)) from error


def _tell(show: Progress, pictures: int, calls: int, of_calls: int, drawn: int) -> None:
    show.update(calls, of_calls, f"steps of the model; {drawn} of {pictures} pictures")
