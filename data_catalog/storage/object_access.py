"""Access to object storage through fsspec: file systems, conditional writes and errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import fsspec

_AT_A_TIME = 16


class ObjectStorageError(RuntimeError):
    """Object storage is unreachable or gave an unexpected answer. The message names the URL."""

    exit_code = 1


def filesystem_of(url: str) -> Any:
    """The fsspec file system of a URL, without a listings cache, because other machines change the
    storage too."""
    return fsspec.core.url_to_fs(url, use_listings_cache=False)[0]


def version_of(info: dict[str, Any]) -> str:
    """The field of an object's listing that changes with its content."""
    names = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified")
    return str(next((info[name] for name in names if info.get(name)), info.get("size")))


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Convert the errors of any remote file system to ObjectStorageError, which names the URL."""
    try:
        yield
    except (ObjectStorageError, FileExistsError):
        raise
    except ImportError as error:
        raise ObjectStorageError(f"{url} needs a package that is not installed: {error}") from error
    except Exception as error:
        raise ObjectStorageError(
            f"object storage failed at {url}: {type(error).__name__}: {error}"
        ) from error


def create(filesystem: Any, url: str, content: bytes) -> None:
    """Write a new object. An existing object with the same content is accepted, because it is an
    earlier write of ours that was not confirmed.

    Raises:
        FileExistsError: the object exists with other content.
        Exception: as the file system raises.
    """
    try:
        filesystem.pipe_file(url, content, mode="create")
    except OSError as error:
        # Servers other than Amazon's do not name the failed condition, which s3fs reports as
        # EINVAL.
        answer = getattr(error.__cause__, "response", {})
        if (
            not isinstance(error, FileExistsError)
            and answer.get("Error", {}).get("Code") != "PreconditionFailed"
        ):
            raise
        if filesystem.cat_file(url) != content:
            raise FileExistsError(url) from error


def remove_objects(urls: Sequence[str]) -> None:
    """Delete objects, many at a time. Objects that are already gone are skipped."""

    def remove(url: str) -> None:
        with suppress(FileNotFoundError):
            filesystem_of(url).rm_file(url)

    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        list(threads.map(remove, urls))
