"""A set of 12,000 emoji with captions, 15,000 with --share-alike, built from packages of npm.

    python -m tools.emoji_tars --out data/emoji [--share-alike] [--without STYLE,...]

FOLDER gets webdataset tars for `download.images` and LICENCES.md, which credits those who drew the
pictures. npm fetches the packages (183 MB, 178 MB without the share-alike styles) into
FOLDER/.packages, where they are kept. Equal options give equal tars, to the byte, with one version
of resvg-py.

There are up to 1,900 emoji in each of eleven styles, captioned like "red apple, Google Noto style".
The `.json` of a row has concept, tags, style, family, group and licence, and the split: a held-out
row shows a concept that no training picture shows in the style's family, but at least four other
families do, and the style shows many other concepts.

Credits: Noto Emoji and its older blobs (Google, Apache-2.0), Twemoji (Twitter and contributors, CC
BY 4.0), Fluent Emoji (Microsoft, MIT), EmojiOne 2 (CC BY 4.0), Streamline Emojis (CC BY 4.0),
FxEmoji (Mozilla, Apache-2.0); names and keywords: Unicode CLDR by way of emojibase (MIT). OpenMoji
and EmojiOne 1 are under CC BY-SA 4.0, which asks that adaptations are published under the same
licence. They are left out unless --share-alike is given.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import io
import os
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from data_catalog.storage.files import make_folder, write_atomically, write_problem
from tools.emoji_rows import EmojiRow, emoji_rows
from tools.emoji_styles import EmojiStyle, EmojiStyles, as_raster, read_styles
from tools.npm_packages import PackageError, PackageFolder

ROWS_PER_TAR = 1400


@dataclass(frozen=True, slots=True)
class _Options:
    out: Path
    without: tuple[str, ...]
    share_alike: bool


class _BadOptions(ValueError):
    pass


def main(words: Sequence[str] | None = None, table: EmojiStyles | None = None) -> int:
    """Fetch the packages and write the tars, by default of all known styles. Returns the exit
    code."""
    options, table = _parse(words), table or read_styles()
    try:
        styles = _chosen_styles(options, table)
        packages = PackageFolder(options.out / ".packages")
        make_folder(packages.path)
        packages.check(table.packages(styles))
        for package in table.packages(styles):
            new = packages.fetch(package)
            megabytes = packages.size(package) / 1e6
            print(f"{package}: {megabytes:.1f} MB{'' if new else ', here already'}", flush=True)
    except (_BadOptions, PackageError, OSError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, _BadOptions) else 1
    concepts = table.concepts(packages)
    rows = emoji_rows(
        concepts, {style: table.drawings(style, concepts, packages) for style in styles}
    )
    with tempfile.TemporaryDirectory(dir=options.out, prefix=".tars-") as unfinished:
        for tar in write_tars(rows, Path(unfinished)):
            print(f"{tar.name}: {tar.stat().st_size / 1e6:.1f} MB", flush=True)
        _put_in_place(Path(unfinished), options.out)
    write_atomically(options.out / "LICENCES.md", licences(rows, table))
    splits = Counter(row.split for row in rows)
    print(f"{splits['train']} pictures to train on, {splits['held_out']} held out: {options.out}")
    return 0


def write_tars(rows: Sequence[EmojiRow], folder: Path) -> Iterator[Path]:
    """Draw the rows, on all cores, and write them to tars in a folder. Yields each tar."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        rasters = pool.map(as_raster, [row.drawing for row in rows], chunksize=16)
        pairs = zip(rows, rasters, strict=True)
        for number in range(-(-len(rows) // ROWS_PER_TAR)):
            path = folder / f"{number:05d}.tar"
            with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
                for row, raster in islice(pairs, ROWS_PER_TAR):
                    for name, content in row.members(raster).items():
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
            yield path


def licences(rows: Sequence[EmojiRow], table: EmojiStyles) -> str:
    """LICENCES.md: whose work the pictures are, and under which licence."""
    counts = Counter(row.style for row in rows)
    lines = [
        "# Licences of these pictures",
        "",
        "The pictures are the work of others: name authors and licences wherever you publish some.",
        "Drawings in SVG were rendered as PNG, and nothing else was changed.",
        "",
        "| style | pictures | by | licence | homepage | package of npm |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {style.name} | {counts[style]} | {style.credit} | {style.licence} | "
            f"{style.homepage} | {style.package} |"
            for style in table.styles
            if style in counts
        ),
        "",
        f"Names and keywords: Unicode CLDR (Unicode-3.0), by way of {table.names} (MIT).",
    ]
    if alike := [style.name for style in table.styles if style in counts and style.share_alike]:
        lines += [
            "",
            f"{' and '.join(alike)}: adaptations have to be published under the same licence.",
        ]
    return "\n".join([*lines, ""])


def _parse(words: Sequence[str] | None) -> _Options:
    parser = argparse.ArgumentParser(
        "emoji_tars", description="Build a set of emoji with captions from packages of npm."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the tars")
    parser.add_argument("--without", default="", help="styles to leave out, joined by commas")
    parser.add_argument(
        "--share-alike",
        action="store_true",
        help="include the styles under CC BY-SA 4.0: OpenMoji outline and classic EmojiOne",
    )
    options = parser.parse_args(words)
    without = tuple(name.strip() for name in options.without.split(",") if name.strip())
    return _Options(options.out, without, options.share_alike)


def _chosen_styles(options: _Options, table: EmojiStyles) -> list[EmojiStyle]:
    """The styles to build. Raises _BadOptions with all problems of the options."""
    problems = []
    names = {style.name.lower(): style.name for style in table.styles}
    for name in options.without:
        if name.lower() not in names:
            close = difflib.get_close_matches(name.lower(), names, n=1)
            hint = f"did you mean {names[close[0]]!r}?" if close else ", ".join(names.values())
            problems.append(f"--without: no style {name!r}; {hint}")
    without = {name.lower() for name in options.without}
    styles = [
        style
        for style in table.styles
        if style.name.lower() not in without and (options.share_alike or not style.share_alike)
    ]
    if not styles:
        problems.append("--without: no style is left")
    if not all(style.folder for style in styles) and not importlib.util.find_spec("resvg_py"):
        problems.append(
            "resvg-py, which draws SVG, is not installed: pip install 'resvg-py>=0.5,<0.6'"
        )
    if others := sorted({*options.out.glob("*.tar")} - {*_tars_of_this_tool(options.out)}):
        problems.append(f"--out: {options.out} has tars of yours, such as {others[0].name}")
    if problem := _folder_problem(options.out):
        problems.append(f"--out: cannot write to {options.out}: {problem}")
    if problems:
        raise _BadOptions("\n".join(problems))
    return styles


def _folder_problem(folder: Path) -> str | None:
    try:
        make_folder(folder)
    except OSError as error:
        return error.strerror
    return write_problem(folder / "LICENCES.md")


def _tars_of_this_tool(out: Path) -> list[Path]:
    """The tars of a folder that has LICENCES.md, named as this tool names them."""
    if not (out / "LICENCES.md").exists():
        return []
    return [path for path in out.glob("*.tar") if len(path.stem) == 5 and path.stem.isdecimal()]


def _put_in_place(tars: Path, out: Path) -> None:
    """Replace the tars of `out`, once all new ones are complete."""
    for old in _tars_of_this_tool(out):
        old.unlink()
    for new in sorted(tars.glob("*.tar")):
        os.replace(new, out / new.name)


if __name__ == "__main__":
    sys.exit(main())
