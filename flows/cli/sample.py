"""`tld sample`: images of prompts, and exact repeats of earlier images."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flows.cli.groups import Config, WordsWithPrompts
from flows.cli.like import read_basis
from flows.cli.model_source import resolve_model
from flows.cli.sample_options import DEFAULT_OPTIONS, Options
from flows.cli.sample_request import is_folder, read_request
from flows.terminal.console import console, load, prompts_and_overrides
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from flows.terminal.progress import Progress


def sample(config: Config, *words: WordsWithPrompts, options: Options = DEFAULT_OPTIONS) -> None:
    """Sample images of prompts with the trained model of this run, or with another model.

    Each PNG of tld records in its metadata how it was made. --like repeats it, bit for bit on the
    same machine. Examples:

    tld sample tiny "a small red star in the center on a blue background" --seed 7
    --out star.png

    tld sample tiny --prompts captions.txt --negative "a circle" --out images/

    tld sample tiny --like star.png --steps 50 --out slower.png
    """
    prompts, overrides = prompts_and_overrides(words)
    settings, to_folder = load(config, overrides), is_folder(options.out)
    resolve = partial(resolve_model, config, overrides, settings, options.model, options.ema)
    basis = read_basis(settings, options.like, resolve, other_model=options.other_model)
    request = read_request(basis, prompts, options, to_folder=to_folder)

    from flows.terminal.progress import Progress
    from pipeline.generate.image_size import SizeError
    from pipeline.generate.png_metadata import ImageFileError
    from pipeline.generate.request import SampleRequest
    from pipeline.generate.write_images import ImageWriter

    writer, count = ImageWriter(*basis.load(SampleRequest)), len(request.captions)
    try:
        with Progress("sample") as show:
            report = partial(_report, show, count)
            write = writer.to_folder if to_folder else writer.to_file
            write(request, options.out, report)
    except (SizeError, ImageFileError) as error:
        raise UserError(str(error)) from error
    console.print(f"{count} sample{'s' if count > 1 else ''}: {options.out}")


def _report(show: Progress, images: int, calls: int, of_calls: int, done: int) -> None:
    show.update(calls, of_calls, f"model steps; {done} of {images} images")
