"""`tld export`: a trained model as a folder that diffusers loads, on the hub, or as one file."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from flows.cli.export_target import (
    ExportTarget,
    Format,
    License,
    Out,
    Public,
    Push,
    Space,
    target_problems,
)
from flows.cli.groups import Config, Overrides
from flows.cli.model_source import Model, resolve_model, trained_run
from flows.cli.problems import refuse
from flows.terminal.console import console, load, quote_overrides
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.export.model_card import Usage
    from pipeline.generate.generator import ImageGenerator
    from pipeline.generate.model_source import ModelSource
    from tld_model.config import SamplingSettings

_EXAMPLE = "a small red star in the top left on a blue background"


def export(
    config: Config,
    *overrides: Overrides,
    out: Out = None,
    to: Format = "diffusers",
    model: Model = None,
    push: Push = None,
    space: Space = None,
    public: Public = False,
    license_name: License = None,
) -> None:
    """Export the trained model as a folder that diffusers loads without tld installed, with the
    model card as README.md; upload it to the Hugging Face hub; or export it as one file.

    In Python: DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True). The same seed gives
    the same images as tld sample, up to rounding.

    Examples:

    tld export tiny --out mine

    tld export tiny --push me/stars --space me/stars-demo --license mit

    tld export tiny --format safetensors --out stars.safetensors
    """
    settings = load(config, overrides)
    target = ExportTarget(out, to == "safetensors", push, space, public, license_name)
    refuse([*target_problems(target)], "cannot export")
    source = resolve_model(config, overrides, settings, model)
    if target.is_file:
        _write_file(source, target)
        run = quote_overrides(config, overrides)
        console.print(
            f"written    {out}\n\nTry next:\n"
            f'  tld sample {run} "{_example(settings)}" --model {shlex.quote(str(out))}'
        )
        return

    if push:
        from pipeline.export.hub import check_account

        check_account(target.repositories)
    from pipeline.export.diffusers import ExportError, check_target

    try:
        if out:
            check_target(out)
        generate = source.load("cpu")
        card = (
            _card_of_weights(source, generate)
            if model
            else _card_of_run(config, overrides, settings)
        )
        _export(settings, source, generate, card, target)
    except ExportError as error:
        raise UserError(f"--out: {error}") from error


def _write_file(source: ModelSource, target: ExportTarget) -> None:
    from data_catalog.storage.files import replacing
    from tld_model.checkpoint import read_config

    assert target.out
    read_config(source.denoiser)  # or it is no denoiser
    with replacing(target.out) as unfinished:
        shutil.copyfile(source.denoiser, unfinished)


def _export(
    settings: RunConfig,
    source: ModelSource,
    generate: ImageGenerator,
    card: Callable[[Usage], str],
    target: ExportTarget,
) -> None:
    """Write the folder, and upload it if it is to be pushed. Raises ExportError or HubError."""
    from pipeline.export.diffusers import export_diffusers

    prompt, sampling = _example(settings), source.sampling(settings.evaluate.sampling)
    defaults = settings.evaluate.model_copy(update=asdict(sampling))

    def licensed(usage: Usage) -> str:
        return card(replace(usage, license=target.license) if target.license else usage)

    with _folder(target.out) as folder:
        export_diffusers(generate, defaults, licensed, prompt, folder, place=target.push or ".")
        if target.out:
            console.print(f"written    {folder}, for diffusers\ncard       {folder / 'README.md'}")
        if target.push:
            _publish(folder, prompt, sampling, target)
    if not target.license:
        console.print("licence    unknown: choose one before others get the model, by --license")
    name = target.push or str(target.out)
    console.print(
        "\nTry next, in Python:\n"
        "  from diffusers import DiffusionPipeline\n"
        f"  pipe = DiffusionPipeline.from_pretrained({name!r}, trust_remote_code=True)\n"
        f'  pipe("{prompt}").images[0].save("image.png")',
    )


def _publish(folder: Path, prompt: str, sampling: SamplingSettings, target: ExportTarget) -> None:
    """Upload the folder, and an app that samples with it. Raises HubError."""
    from pipeline.export.hub import upload
    from pipeline.export.space import write_space

    assert target.push
    console.print(f"uploading  {target.push} …")
    console.print(f"model      {upload(folder, target.push, 'model', public=target.public)}")
    if target.space:
        with TemporaryDirectory(prefix="tld-space-") as app:
            write_space(Path(app), target.push, prompt, sampling)
            console.print(
                f"space      {upload(Path(app), target.space, 'space', public=target.public)}\n"
                "           While the model is private, the Space needs the secret HF_TOKEN"
            )


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """The folder to write, or a temporary one."""
    if out:
        yield out
        return
    with TemporaryDirectory(prefix="tld-export-") as parent:
        yield Path(parent) / "model"


def _example(settings: RunConfig) -> str:
    return _EXAMPLE if settings.download.urls == "shapes" else "what the image shows"


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
