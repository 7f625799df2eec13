"""From the path, URL or pattern of an image source to its files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import braceexpand
from fsspec.implementations.local import LocalFileSystem

from data_catalog.image_sources.file_tree import (
    PATTERN_SIGNS,
    FileTree,
    ImageSourceError,
    is_pattern,
)
from data_catalog.sources import source_at
from data_catalog.url_table.files import UrlTableError, cause_of, locate


def find_tree(source: str) -> FileTree:
    """The files at a path, URL or pattern: `*`, `?` and `[…]` as in a shell, and `{00..11}` as in
    webdataset. Raises ImageSourceError if there is nothing."""
    try:
        filesystem, path = locate(source, "image source")
        is_web = "http" in filesystem.protocol
        if is_web:
            _refuse_on_web(source)
        if filesystem.exists(path):
            # On the web, isdir would download the whole file.
            is_folder = not is_web and filesystem.isdir(path)
            root = path if is_folder else _parent(path)
            return FileTree(source, filesystem, root, None if is_folder else (path,))
        places = _expanded(source)
        # Of many remote files each check would be a request; listing them finds what is missing.
        checked = places if isinstance(filesystem, LocalFileSystem) else places[:1]
        missing = [p for p in checked if not (is_pattern(p) or filesystem.exists(p))]
        if not missing:
            return FileTree(source, filesystem, _common_root(places), places)
    except UrlTableError:
        raise
    except Exception as error:  # each remote file system has errors of its own
        raise ImageSourceError(
            f"the images at {source} cannot be reached: {cause_of(error)}"
        ) from error
    raise ImageSourceError(
        f"there is nothing at {missing[0] if len(places) > 1 else source}{_hint(source)}"
    )


def _refuse_on_web(source: str) -> None:
    """Raise ImageSourceError for what a web server cannot give: it lists no folders, so nothing
    would tell that an image changed; and a signed query would become part of the records."""
    place, question, _ = source.partition("?")
    if question:
        raise ImageSourceError(
            f"the images at {place}: a URL with a query cannot be used; fetch the file first"
        )
    path = urlsplit(place).path
    if path.endswith("/") or not PurePosixPath(path).suffix or is_pattern(place):
        folder = _parent(place[: _first_special(place)])
        raise ImageSourceError(
            f"the images at {place}: a web server does not list folders; name tar or Parquet "
            f"files, for example {folder}/{{00000..00009}}.tar, or put the URLs of the "
            "images into a table for download.urls"
        )


def _expanded(source: str) -> tuple[str, ...]:
    """The paths that braces stand for. Braces without their counterpart stand for themselves."""
    try:
        sources = [*braceexpand.braceexpand(source)]
    except ValueError:
        sources = [source]
    return tuple(locate(place, "image source")[1] for place in sources)


def _hint(source: str) -> str:
    """What somebody may have meant by a path at which there is nothing, or where to get it."""
    if known := source_at(source):
        return f"\n{known.how_to_get}"
    if source.count("/") == 1 and "." not in source:
        return f"; for the data set {source} of the Hugging Face hub write hf://datasets/{source}"
    return ""


def _common_root(places: Sequence[str]) -> str:
    """The deepest folder that contains all files which these patterns can match."""
    fixed = [_parent(place[: _first_special(place)] + "x") for place in places]
    by_level = zip(*(folder.split("/") for folder in fixed), strict=False)
    levels = takewhile(lambda names: len({*names}) == 1, by_level)
    return "/".join(names[0] for names in levels) or "/"


def _first_special(place: str) -> int:
    return min((place.find(sign) for sign in PATTERN_SIGNS if sign in place), default=len(place))


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"
