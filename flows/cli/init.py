"""`tld init`: a first config for a user's own data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.terminal.console import console, quote_overrides
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from pipeline.first_config.choose import Choice
    from pipeline.first_config.look import FirstLook

_TASTE = 500  # rows
_FEW = 1000  # rows


def init(
    path: Annotated[
        str,
        Parameter(
            help="A folder of images, webdataset tars (a folder or a pattern in quotes), Parquet "
            "files with images, a Hugging Face data set (a folder, or "
            "hf://datasets/OWNER/NAME), or a table of image URLs. Also s3://… and other URLs."
        ),
    ],
    config: Annotated[
        Path | None,
        Parameter(help="The config to write. [default: the last part of PATH, with .yaml]"),
    ] = None,
) -> None:
    """Look at your images or your table of URLs, and write a commented config for them.

    It finds the format, the captions and the sizes of images, chooses a model for this machine, and
    says what to type next. Beside the config it writes tld.schema.json, by which editors complete,
    explain and check the settings, in place of an earlier one. It changes nothing else.

    Example: tld init photos
    """
    from pipeline.compute.devices import choose_device
    from pipeline.compute.hardware import hardware
    from pipeline.config.config_file import SCHEMA_FILE
    from pipeline.config.paths import expand
    from pipeline.first_config.choose import choose, config_text
    from pipeline.first_config.look import look_at

    target = config or Path(f"{_name_of(path)}.yaml")
    if target.exists():
        raise UserError(f"{target} exists; give another name: tld init {path} NAME.yaml")
    look = look_at(expand(path))
    choice = choose(look, on_gpu=choose_device("auto") != "cpu")
    text = config_text(_slug(target.stem) or "my-data", look, choice)
    target.parent.mkdir(parents=True, exist_ok=True)
    schema = target.with_name(SCHEMA_FILE.name)
    _write_schema(schema, SCHEMA_FILE.read_bytes())
    target.write_text(text, encoding="utf-8")
    for name, fact in _facts(look, choice, hardware()):
        console.print(f"{name:10} {fact}")
    written = quote_overrides(target, ())
    taste = f"  tld run {written} download.limit={_TASTE} --until encode    # a taste\n"
    console.print(
        f"\nwrote {target}, and {schema.name} beside it for your editor. Next:\n"
        f"  tld download {written} --plan        # what it would cost\n"
        f"{taste if look.rows > _TASTE else ''}"
        f"  tld run {written}"
    )


def _write_schema(path: Path, content: bytes) -> None:
    """Write the schema, or leave one that is there and may not be changed as it is."""
    try:
        path.write_bytes(content)
    except PermissionError:
        if not path.is_file():
            raise


def _facts(look: FirstLook, choice: Choice, machine: str) -> Iterator[tuple[str, str]]:
    """What was found, as lines."""
    exact = "" if look.what != "webdataset tars" else "about "
    yield "found", f"{look.what} at {look.place}: {exact}{look.rows:,} rows"
    yield (
        "captions",
        f"in {look.columns.caption!r}: {len(look.captions)} of the first {look.looked_at} rows "
        f"have one, such as {look.captions[0][:60]!r}",
    )
    if look.rows < _FEW:
        yield "few", f"a model trained on fewer than {_FEW:,} images mostly repeats them"
    if look.short_sides:
        low, high = min(look.short_sides), max(look.short_sides)
        bad = f"; {look.unreadable} cannot be opened" if look.unreadable else ""
        yield (
            "sizes",
            f"short sides from {low} to {high} pixels, half of them at least "
            f"{median(look.short_sides):.0f}{bad}",
        )
    elif not look.is_urls:
        yield "sizes", "none of the first images can be opened"
    yield "machine", machine
    size = f"{choice.image_size} px, {choice.steps:,} steps of {choice.batch_size} pairs"
    yield "model", f"{'101 million parameters' if choice.on_gpu else 'a small one'} at {size}"


def _name_of(path: str) -> str:
    """A name for a config: the last part of a path that has letters, without its suffixes."""
    parts = reversed(path.partition("?")[0].rstrip("/").split("/"))
    return next(filter(None, (_slug(part.partition(".")[0]) for part in parts)), "my-data")


def _slug(text: str) -> str:
    """A text as the name of a run: its ASCII letters and digits."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")
