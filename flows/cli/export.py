"""`tld export`: a trained model as a folder that diffusers loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
from flows.cli.model_source import Model, resolve_model, trained_run
from flows.cli.out_path import folder_problems
from flows.terminal.console import console, load
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.export.model_card import Usage
    from pipeline.generate.generator import ImageGenerator
    from pipeline.generate.model_source import ModelSource

_EXAMPLE = "a small red star in the top left on a blue background"


def export(
    config: Config,
    *overrides: Overrides,
    out: Annotated[Path, Parameter(help="Folder to write; an earlier export in it is replaced.")],
    to: Annotated[
        Literal["diffusers"], Parameter(name="--format", help="Library to export for.")
    ] = "diffusers",
    model: Model = None,
) -> None:
    """Export the trained model as a folder that diffusers loads without tld installed, with the
    model card as README.md.

    In Python: DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True). The same seed gives
    the same images as tld sample, up to rounding.

    Example: tld export tiny --out mine
    """
    settings = load(config, overrides)
    if problems := folder_problems(out):
        raise UserError("\n".join(problems))
    source = resolve_model(config, overrides, settings, model)

    from pipeline.export.diffusers import ExportError, check_target, export_diffusers

    try:
        check_target(out)
        generate = source.load("cpu")
        card = (
            _card_of_weights(source, generate)
            if model
            else _card_of_run(config, overrides, settings)
        )
        prompt = _EXAMPLE if settings.download.urls == "shapes" else "what the image shows"
        own = asdict(source.sampling(settings.evaluate.sampling))
        export_diffusers(generate, settings.evaluate.model_copy(update=own), card, prompt, out)
    except ExportError as error:
        raise UserError(f"--out: {error}") from error
    console.print(
        f"written    {out}, for {to}\n"
        f"card       {out / 'README.md'}: choose a licence in it before you publish it\n\n"
        "Try next, in Python:\n"
        "  from diffusers import DiffusionPipeline\n"
        f"  pipe = DiffusionPipeline.from_pretrained({str(out)!r}, trust_remote_code=True)\n"
        f'  pipe("{prompt}").images[0].save("image.png")',
    )


def _card_of_run(
    config: Path, overrides: Sequence[str], settings: RunConfig
) -> Callable[[Usage], str]:
    from pipeline.export.model_card import model_card

    encodings, trained, report = trained_run(config, overrides, settings)
    data_set = settings.download.known_source
    return lambda usage: model_card(
        encodings, trained, report, settings.name, source=data_set, usage=usage
    )


def _card_of_weights(source: ModelSource, generate: ImageGenerator) -> Callable[[Usage], str]:
    from pipeline.export.model_card import card_of_weights

    denoiser, encoders = generate.denoiser, {"vae": source.vae, "text": source.text_model}
    parameters = sum(weight.numel() for weight in denoiser.parameters())
    name = source.denoiser.resolve().parent.name
    return lambda usage: card_of_weights(denoiser.config, parameters, encoders, name, usage)
