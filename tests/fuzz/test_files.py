"""Damaged files of strangers and of crashes: read as they are, or refused by the error that users
see."""

from __future__ import annotations

import io
import socket
import threading
import urllib.request
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data_catalog.encodings import EncodingsError, read_arrays, read_rows
from data_catalog.storage.manifest import ManifestError, read_manifest, write_manifest
from pipeline.config.download import DownloadConfig
from pipeline.download.http.messages import FetchFailed
from pipeline.download.http.opener import GuardedOpener
from pipeline.download.resize import SquareResizer
from pipeline.generate.image_metadata import ImageMetadata
from pipeline.generate.png_metadata import ENTRY
from tests.data_catalog.test_encodings import make_shard
from tests.pipeline.generate.test_earlier_metadata import FORMAT_1, REQUESTS
from tests.pipeline.generate.test_request import EXAMPLES, request
from tests.support.command import REPOSITORY
from tests.support.fuzz import bounded_memory, check_explained, damaged, refused_only_by, run_tld
from tests.support.image_shards import make_images, read_image_pairs
from tests.support.images import encoded, photo
from tests.support.untrained import ORIGIN
from tld_model.checkpoint import CheckpointError, load_denoiser, save_denoiser
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser

COMMANDS = ["sample", "edit", "interpolate", "panorama"]
# Files of 0.1.0, and metadata of the present form for each command.
IMAGES = [FORMAT_1 / f"{name}.png" for name in REQUESTS]
METADATA = [
    ImageMetadata(request=request(kind), origin=ORIGIN).model_dump_json().encode()
    for kind in EXAMPLES
]
_SMALL = DenoiserConfig(
    latent_size=4, latent_channels=4, text_dim=8, width=64, layers=1, noise_embed_dim=16
)
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 9\r\nX-Robots-Tag: all\r\n\r\n123456789"
_REDIRECT = (
    b"HTTP/1.1 302 Found\r\nLocation: /other?a=b#c\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
)
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n3;x=y\r\n567\r\n0\r\nT: t\r\n\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of images with its manifest, a shard of encodings, a denoiser."""
    folder = tmp_path_factory.mktemp("whole")
    write_manifest(make_images(folder / "images", (3,)))
    (folder / "encodings").mkdir()
    make_shard(folder / "encodings")
    torch.manual_seed(0)
    save_denoiser(folder / "denoiser.safetensors", Denoiser(_SMALL).state_dict(), _SMALL)
    return folder


@given(data=st.data())
def test_a_damaged_image_shard_is_refused_in_words(data: st.DataObject, folder: Path) -> None:
    path = folder / "damaged.tar"
    path.write_bytes(data.draw(damaged((folder / "images/00000.tar").read_bytes())))
    with bounded_memory(300), refused_only_by(ManifestError):
        list(read_image_pairs(path))


@given(data=st.data())
def test_a_damaged_manifest_is_refused_in_words(data: st.DataObject, folder: Path) -> None:
    images = folder / "damaged-manifest"
    images.mkdir(exist_ok=True)
    (images / "00000.tar").write_bytes((folder / "images/00000.tar").read_bytes())
    (images / "manifest.json").write_bytes(
        data.draw(damaged((folder / "images/manifest.json").read_bytes()))
    )
    with bounded_memory(300), refused_only_by(ManifestError, images):
        read_manifest(images)


@given(data=st.data(), name=st.sampled_from(["00000.npz", "00000.parquet"]))
def test_damaged_encodings_are_refused_in_words(
    data: st.DataObject, name: str, folder: Path
) -> None:
    encodings = folder / "damaged-encodings"
    encodings.mkdir(exist_ok=True)
    for whole in (folder / "encodings").iterdir():
        (encodings / whole.name).write_bytes(whole.read_bytes())
    (encodings / name).write_bytes(data.draw(damaged((folder / "encodings" / name).read_bytes())))
    with bounded_memory(300), refused_only_by(EncodingsError, encodings):
        arrays = read_arrays(encodings / "00000.npz")
        for array in arrays.by_name.values():
            array.sum() if array.dtype.kind in "uif" else array.tolist()
        read_rows(encodings, "00000").to_pylist()


@given(data=st.data())
def test_a_damaged_denoiser_is_refused_in_words(data: st.DataObject, folder: Path) -> None:
    path = folder / "damaged.safetensors"
    whole = (folder / "denoiser.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    path.write_bytes(data.draw(damaged(whole[:header])) + whole[header:])
    with bounded_memory(300), refused_only_by(CheckpointError, path):
        load_denoiser(path, "cpu")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@given(data=st.data())
def test_a_damaged_picture_costs_its_own_row(kind: str, data: st.DataObject) -> None:
    body = data.draw(damaged(encoded(photo(1, (80, 70)), kind)))
    resize = SquareResizer(
        edge=64, encode_format="png", quality=95, min_side=64, max_pixels=64e6, max_aspect_ratio=4.0
    )
    with bounded_memory(1200):
        picture, *_, cause = resize(io.BytesIO(body))
    assert (picture is None) != (cause is None)


@given(data=st.data(), command=st.sampled_from(COMMANDS))
def test_a_damaged_image_is_no_crash_of_like(
    data: st.DataObject, command: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "like.png"
    path.write_bytes(data.draw(damaged(data.draw(st.sampled_from(IMAGES)).read_bytes())))
    _run_like(command, path)


@given(data=st.data(), command=st.sampled_from(COMMANDS))
def test_damaged_metadata_is_no_crash_of_like(
    data: st.DataObject, command: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    metadata = data.draw(damaged(data.draw(st.sampled_from(METADATA))))
    path, entries = tmp_path_factory.getbasetemp() / "like.png", PngInfo()
    entries.add_itxt(ENTRY, metadata.decode(errors="replace"))
    Image.new("RGB", (8, 8)).save(path, pnginfo=entries)
    _run_like(command, path)


def _run_like(command: str, path: Path) -> None:
    image = [FORMAT_1 / "in.png"] if command == "edit" else []
    config, nowhere = REPOSITORY / "conf/tiny.yaml", f"root={path.parent}/nowhere"
    check_explained(run_tld(command, config, *image, "--like", path, nowhere))


@given(answer=st.sampled_from([_ANSWER, _REDIRECT, _CHUNKED]).flatmap(damaged))
def test_any_http_answer_is_a_body_or_a_cause(answer: bytes) -> None:
    config = DownloadConfig(
        urls="x",
        allowed_networks=("127.0.0.0/8",),
        retries=0,
        timeout_s=1,
        url_deadline_s=2,
        max_body_mb=1,
    )
    with socket.create_server(("127.0.0.1", 0)) as server, bounded_memory(200):
        threading.Thread(target=_answer_all, args=(server, answer), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.png"
        opener = GuardedOpener(config)
        with refused_only_by(FetchFailed):
            opener.open(urllib.request.Request(url))
        opener.end_shard()


def _answer_all(server: socket.socket, answer: bytes) -> None:
    """Give every connection the same answer, until the server is closed."""
    while True:
        try:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)
        except OSError:
            if server.fileno() < 0:
                return
