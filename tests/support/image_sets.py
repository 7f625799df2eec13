"""The same images and captions in each form that stage 1 takes: a folder, tars, Parquet, a saved
data set, and URLs on a loopback server."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
from pyarrow import parquet

from tests.support.images import encoded, photo


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One image file."""

    name: str
    """With its suffix; sorted names are the order of all forms."""
    content: bytes
    caption: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """Further columns: of NAME.json, or of the table."""


def image_set(
    count: int, kind: str = "JPEG", size: tuple[int, int] = (40, 32)
) -> list[CaptionedImage]:
    """Images that all differ, with captions."""
    return [
        CaptionedImage(f"{n:04d}.jpg", encoded(photo(n, size), kind), f"picture number {n}")
        for n in range(count)
    ]


def write_folder(folder: Path, images: Iterable[CaptionedImage], *, captions: bool = True) -> Path:
    """NAME.jpg, with NAME.txt beside it."""
    for image in images:
        path = folder / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.content)
        if captions:
            path.with_suffix(".txt").write_text(image.caption, encoding="utf-8")
            if image.columns:
                path.with_suffix(".json").write_text(json.dumps(image.columns), encoding="utf-8")
    return folder


def write_metadata(folder: Path, images: Sequence[CaptionedImage], kind: str = "csv") -> Path:
    """NAME.jpg, and a metadata.csv, .jsonl or .parquet that names them."""
    write_folder(folder, images, captions=False)
    rows = [{"file_name": i.name, "caption": i.caption, **i.columns} for i in images]
    path = folder / f"metadata.{kind}"
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return folder


def write_members(
    path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w", **options: object
) -> Path:
    """A tar of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, **options) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_tars(folder: Path, images: Sequence[CaptionedImage], per_tar: int) -> Path:
    """Tars in webdataset layout, with this many samples each."""
    for number, start in enumerate(range(0, len(images), per_tar)):
        members = list[tuple[str, bytes]]()
        for image in images[start : start + per_tar]:
            key = image.name.rpartition(".")[0]
            members += [(image.name, image.content), (f"{key}.txt", image.caption.encode())]
            if image.columns:
                members.append((f"{key}.json", json.dumps(image.columns).encode()))
        write_members(folder / f"{number:05d}.tar", members)
    return folder


def write_parquet(path: Path, images: Sequence[CaptionedImage], group: int = 7) -> Path:
    """Rows with structs {bytes, path}, in row groups of this many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"image": {"bytes": i.content, "path": i.name}, "caption": i.caption, **i.columns}
        for i in images
    ]
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def write_dataset(folder: Path, images: Sequence[CaptionedImage]) -> Path:
    """A data set as the library `datasets` saves it."""
    from datasets import Dataset, Features, Image, Value

    more = {name: [image.columns[name] for image in images] for name in images[0].columns}
    texts = {"caption": [image.caption for image in images], **more}
    features = Features({"image": Image(decode=False), **dict.fromkeys(texts, Value("string"))})
    rows = {"image": [{"bytes": image.content, "path": None} for image in images], **texts}
    Dataset.from_dict(rows, features=features).save_to_disk(folder)
    return folder


@contextmanager
def serve(images: Sequence[CaptionedImage]) -> Iterator[str]:
    """The address of a server with these images."""
    contents = {f"/{quote(image.name)}": image.content for image in images}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = contents.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def write_urls(path: Path, images: Sequence[CaptionedImage], address: str) -> Path:
    """A table of their URLs on a server."""
    header = ",".join(["url", "caption", *images[0].columns])
    cells = [[f"{address}/{quote(i.name)}", i.caption, *i.columns.values()] for i in images]
    path.write_text("\n".join([header, *map(",".join, cells)]) + "\n", encoding="utf-8")
    return path
