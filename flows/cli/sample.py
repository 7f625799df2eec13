"""`tld sample`: images of prompts, and exact repeats of earlier images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.groups import Config, WordsWithPrompts
from flows.cli.sample_options import DEFAULT_OPTIONS, Options
from flows.cli.sample_request import SampleJob, read_job
from flows.terminal.console import console, load, prompts_and_overrides
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from flows.terminal.progress import Progress
    from pipeline.generate.generator import ImageGenerator
    from pipeline.generate.request import ModelIdentity


def sample(config: Config, *words: WordsWithPrompts, options: Options = DEFAULT_OPTIONS) -> None:
    """Sample images of prompts with the trained model of this run, or with another model.

    Each PNG records in its metadata how it was made. --like repeats it, bit for bit on the same
    machine. Examples:

    tld sample conf/tiny.yaml "a small red star in the center on a blue background" --seed 7
    --out star.png

    tld sample conf/tiny.yaml --prompts captions.txt --negative "a circle" --out images/

    tld sample conf/tiny.yaml --like star.png --steps 50 --out slower.png
    """
    prompts, overrides = prompts_and_overrides(words)
    settings = load(config, overrides)
    job = read_job(config, overrides, settings, prompts, options)
    identity = job.source.identity()
    if job.recorded and not options.other_model:
        _check_model(job.recorded.model, identity)
    _write_images(job, job.source.load(settings.evaluate.device), identity, options.out)
    count = len(job.request.captions)
    console.print(f"{count} sample{'s' if count > 1 else ''}: {options.out}")


def _check_model(recorded: ModelIdentity, identity: ModelIdentity) -> None:
    """Raise UserError if an image was made with another model."""
    if differences := recorded.differences(identity):
        raise UserError(
            "the image was made with another model:\n"
            + "\n".join(f"  {difference}" for difference in differences)
            + "\nSelect that model with CONFIG and its settings, --ema or --model, or use this one "
            "with --other-model"
        )


def _write_images(
    job: SampleJob, generate: ImageGenerator, identity: ModelIdentity, out: Path
) -> None:
    """Sample and write the images. The repeat of a single image is a single image, not a grid."""
    from flows.terminal.progress import Progress
    from pipeline.generate.generator import SizeError
    from pipeline.generate.png_metadata import ImageFileError
    from pipeline.generate.write_images import ImageWriter

    writer, count, recorded = (
        ImageWriter(generate, identity),
        len(job.request.captions),
        job.recorded,
    )
    single = recorded is not None and recorded.layout == "picture" and count == 1
    try:
        with Progress("sample") as show:
            if recorded and recorded.device != writer.device:
                show.finish(
                    f"the image was made on a {recorded.device}; rounding on this "
                    f"{writer.device} differs slightly"
                )
            report = partial(_report, show, count)
            if job.to_folder:
                writer.to_folder(job.request, out, report)
            else:
                writer.to_file(job.request, out, "picture" if single else "grid", report)
    except (SizeError, ImageFileError) as error:
        raise UserError(str(error)) from error


def _report(show: Progress, images: int, calls: int, of_calls: int, done: int) -> None:
    show.update(calls, of_calls, f"model steps; {done} of {images} images")
