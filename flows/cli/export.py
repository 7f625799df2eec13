"""`tld export`: a trained model as a folder that another library loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
from flows.cli.model_source import Model, ModelSource, resolve_model, trained_run
from flows.cli.out_path import folder_problems
from flows.terminal.console import console, load
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.export.model_card import Usage
    from pipeline.generate.generator import ImageGenerator

_EXAMPLE = "a small red star in the top left on a blue background"


def export(
    config: Config,
    *overrides: Overrides,
    out: Annotated[Path, Parameter(help="Folder to write; an earlier export there is replaced.")],
    to: Annotated[
        Literal["diffusers"], Parameter(name="--format", help="The library.")
    ] = "diffusers",
    model: Model = None,
) -> None:
    """Write the trained model as a folder that loads without this project, with its model card as
    README.md.

    Format diffusers: DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True) loads it. The
    same seed gives the same pictures as here, up to rounding.
    """
    settings = load(config, overrides)
    if problems := folder_problems(out):
        raise UserError("\n".join(problems))
    which = resolve_model(config, overrides, settings, model)

    from pipeline.export.diffusers import ExportError, check_target, export_diffusers

    try:
        check_target(out)
        generate = which.load("cpu")
        card = (
            _card_of_weights(which, generate)
            if model
            else _card_of_run(config, overrides, settings)
        )
        prompt = _EXAMPLE if settings.download.urls == "shapes" else "what the picture shows"
        export_diffusers(generate, settings.evaluate, card, prompt, out)
    except ExportError as error:
        raise UserError(f"--out: {error}") from error
    console.print(
        f"written    {out}, for {to}\n"
        f"card       {out / 'README.md'}: choose a licence there before you publish it\n\n"
        "Try next, in Python:\n"
        "  from diffusers import DiffusionPipeline\n"
        f"  pipe = DiffusionPipeline.from_pretrained({str(out)!r}, trust_remote_code=True)\n"
        f'  pipe("{prompt}").images[0].save("picture.png")',
    )


def _card_of_run(
    config: Path, overrides: Sequence[str], settings: RunConfig
) -> Callable[[Usage], str]:
    from pipeline.export.model_card import model_card

    encodings, trained, report = trained_run(config, overrides, settings)
    source = settings.download.known_source
    return lambda usage: model_card(
        encodings, trained, report, settings.name, source=source, usage=usage
    )


def _card_of_weights(which: ModelSource, generate: ImageGenerator) -> Callable[[Usage], str]:
    from pipeline.export.model_card import card_of_weights

    denoiser, encoders = generate.denoiser, {"vae": which.vae, "clip": which.clip}
    parameters = sum(weight.numel() for weight in denoiser.parameters())
    name = which.denoiser.resolve().parent.name
    return lambda usage: card_of_weights(denoiser.config, parameters, encoders, name, usage)
