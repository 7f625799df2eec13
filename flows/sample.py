"""`tld sample`: pictures of a prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.terminal import Config, UserMistake, console, load
from flows.which_model import Model, which_model
from tld_model.sampling import SolverName


def sample(
    config: Config,
    prompt: Annotated[str, Parameter(help="What the picture shows.")],
    *overrides: Annotated[str, Parameter(help="Settings to change, as section.key=value.")],
    count: Annotated[int, Parameter(help="How many pictures.")] = 16,
    seed: Annotated[int, Parameter(help="Of the noise: picture i is that of seed + i.")] = 0,
    steps: Annotated[int | None, Parameter(help="Sampling steps; evaluate.steps without it.")] = None,
    guidance: Annotated[float | None, Parameter(help="Guidance scale; evaluate.guidance without it.")] = None,
    solver: Annotated[
        SolverName | None,
        Parameter(help="evaluate.solver without it; heun asks the model twice a step; euler and ddim are the same."),
    ] = None,
    model: Model = None,
    out: Annotated[Path, Parameter(help="PNG file to write.")] = Path("sample.png"),
) -> None:
    """Draw pictures of a prompt with the trained model of this run, or another."""
    settings = load(config, overrides)
    chosen = which_model(config, overrides, settings, model)
    if not prompt.strip():
        raise UserMistake("the prompt is empty; say what the picture should show")
    if count < 1 or (steps is not None and steps < 1) or (guidance is not None and guidance < 1):
        raise UserMistake(f"--count, --steps and --guidance must be at least 1, got {count}, {steps}, {guidance}")
    if not out.parent.is_dir():
        raise UserMistake(f"there is no folder {out.parent} to write {out.name} into")

    from pipeline.pictures import picture_grid

    usual = settings.evaluate.sampling
    sampling = replace(
        usual, steps=steps or usual.steps, guidance=guidance or usual.guidance, solver=solver or usual.solver
    )
    generate = chosen.load(settings.evaluate.device)
    pictures = generate([prompt] * count, range(seed, seed + count), sampling)
    picture_grid(list(pictures), [prompt] * count).save(out, format="PNG")
    console.print(f"{count} samples: {out}", markup=False)
