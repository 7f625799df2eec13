"""Rows and images of Hugging Face data sets: saved ones, and what is said of those on the hub."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data_catalog.image_sources.file_tree import ImageSourceError
from data_catalog.image_sources.hub_images import HubImages, is_hub_name, is_saved
from data_catalog.url_table.rows import TableColumns
from tests.support.command import REPOSITORY
from tests.support.image_sets import image_set, write_dataset

MOST = 1 << 20


def source(place: Path | str, split: str = "train", image_column: str = "image") -> HubImages:
    return HubImages(str(place), image_column, None, split)


def rows(images: HubImages, columns: TableColumns) -> list[dict[str, Any]]:
    return [row for batch in images.batches(columns) for row in batch.rows.to_pylist()]


def test_rows_and_images_of_a_saved_data_set(tmp_path: Path) -> None:
    expected = image_set(20)
    images = source(write_dataset(tmp_path / "saved", expected))
    assert is_saved(images.source)
    images.check(TableColumns())
    table = rows(images, TableColumns())
    assert [row["caption"] for row in table] == [image.caption for image in expected]
    assert [row["row"] for row in table] == [*range(20)]
    urls = [row["url"] for row in table]
    assert urls[7] == "dataset:7"
    assert list(images.bodies(urls[5:], MOST)) == [image.content for image in expected[5:]]
    assert [str(body) for body in images.bodies(urls[:1], 9)] == ["file too large"]
    assert images.rows_about() == 20


def save_odd(folder: Path, photo: Path) -> Path:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

    features = Features(
        {
            "picture": Image(decode=False),
            "label": ClassLabel(names=["cat", "dog"]),
            "n": Value("int64"),
        }
    )
    pictures = [{"bytes": b"x", "path": None}, {"bytes": None, "path": str(photo)}, None]
    content = {"picture": pictures, "label": [1, 0, None], "n": [1, 2, 3]}
    train = Dataset.from_dict(content, features=features)
    DatasetDict({"train": train, "test": train.select([0])}).save_to_disk(folder)
    return folder


def test_names_of_classes_and_files_that_rows_name(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    place = save_odd(tmp_path / "saved", tmp_path / "photo.jpg")
    images, columns = source(place, image_column="picture"), TableColumns(caption="label")
    images.check(columns)
    assert images.columns() == ["label"]
    table = rows(images, columns)
    assert [row["caption"] for row in table] == ["dog", "cat", None]
    bodies = images.bodies([row["url"] for row in table], MOST)
    assert [body if isinstance(body, bytes) else str(body) for body in bodies] == [
        *(b"x", b"photo", "row without image bytes")
    ]
    joined = source(place, "train+test", "picture")
    assert joined.rows_about() == 4
    assert joined.digest() == source(place, "train+test", "picture").digest()


def test_what_a_data_set_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    place = save_odd(tmp_path / "saved", tmp_path / "photo.jpg")
    for images, columns, message in (
        (source(place, "dev"), TableColumns(), "no split 'dev'; its splits are train, test"),
        (source(place), TableColumns(caption="label"), "no column 'image'.*picture, label, n"),
        (source(place, image_column="n"), TableColumns(caption="label"), "no images"),
    ):
        with pytest.raises(ImageSourceError, match=message) as told:
            images.check(columns)
        assert told.value.exit_code == 2


def test_the_digest_does_not_follow_the_place(tmp_path: Path) -> None:
    before = source(write_dataset(tmp_path / "a", image_set(2))).digest()
    (tmp_path / "a").rename(tmp_path / "b")
    assert source(tmp_path / "b").digest() == before
    assert source(write_dataset(tmp_path / "c", image_set(3))).digest() != before


def test_names_on_the_hub() -> None:
    assert is_hub_name("hf://datasets/owner/name@main")
    assert not is_hub_name("hf://datasets/owner/name/data/*.tar")
    assert not is_hub_name("owner/name")


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_dataset(tmp_path / "a", image_set(1))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImageSourceError, match=r"pip install datasets"):
        source(place).check(TableColumns())


@contextmanager
def hub_that_answers(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = b'{"error": "Repository not found"}'
            self.send_response(status)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content if self.command == "GET" else b"")

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 404])
def test_a_private_data_set_is_one_message_about_a_login(tmp_path: Path, status: int) -> None:
    code = (
        "from data_catalog.image_sources.hub_images import HubImages\n"
        "from data_catalog.url_table.rows import TableColumns\n"
        "try:\n"
        "    HubImages('hf://datasets/owner/secret', 'image', None, 'train').check(TableColumns())\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    with hub_that_answers(status) as address:
        environment = {
            **os.environ,
            "HF_ENDPOINT": address,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path),
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert "owner/secret cannot be loaded" in done.stdout
    assert "hf auth login" in done.stdout
