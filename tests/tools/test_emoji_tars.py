"""A set of emoji built from small packages, which npm fetches from loopback."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import tarfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

from pipeline.config.load import load_config
from pipeline.download.stage import download
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from tests.support.mapping import map_here
from tests.support.tracker import RememberingTracker
from tools.emoji_rows import emoji_rows
from tools.emoji_styles import Concept, Drawing, EmojiStyles, read_styles
from tools.emoji_tars import main

# Names, code points and group as emojibase-data has them.
EMOJI = [
    ("red apple", "1F34E", 4),
    ("keycap: #", "0023-FE0F-20E3", 8),
    ("keycap: *", "002A-FE0F-20E3", 8),
    ("flag: Trinidad & Tobago", "1F1F9-1F1F9", 9),
    ("piñata", "1FA85", 6),
    ("regional indicator K", "1F1F0", None),
]
NAMES = {
    "en/data.json": json.dumps(
        [
            {"label": label, "hexcode": code, "tags": ["a", label[:3]]}
            | ({} if group is None else {"group": group})
            for label, code, group in EMOJI
        ]
    ).encode(),
    "meta/groups.json": json.dumps(
        {"groups": {"4": "food-drink", "6": "activities", "8": "symbols", "9": "flags"}}
    ).encode(),
}


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (64, 64), colour).save(file, "PNG")
    return file.getvalue()


def icon_set(colour: str, names: dict[str, str], chars: dict[str, str]) -> dict[str, bytes]:
    """An icon set whose icons are 16 × 8 in a colour, with one alias."""
    icons = {name: {"body": f'<path fill="{colour}" d="{path}"/>'} for name, path in names.items()}
    aliases = {"red-apple": {"parent": "red-apple-1"}}
    whole = {"icons": icons, "aliases": aliases, "width": 16, "height": 8}
    return {
        "icons.json": json.dumps(whole).encode(),
        "chars.json": json.dumps(chars).encode(),
    }


FULL, HALF = "M0 0h16v8H0z", "M0 0h8v8H0z"
PACKAGES = {
    "names": NAMES,
    "raster": {
        "img/64/1f34e.png": png("red"),
        "img/64/0023-20e3.png": png("blue"),
        "img/64/sheets/1fa85.png": png("green"),
        "img/128/1fa85.png": png("green"),
    },
    "@icons/flat": icon_set(
        "#00ff00",
        {"apple": FULL, "keycap": FULL, "piata": HALF, "k": FULL},
        {"1f34e": "apple", "1fa85": "piata", "1f1f0": "k", "e123": "k"},
    ),
    "@icons/other": icon_set("#0000ff", {"apple": HALF, "piata": HALF, "pinata": FULL}, {}),
    "@icons/alike": icon_set(
        "#ff0000", {"red-apple-1": FULL, "flag-for-trinidad-and-tobago": FULL, "keycap": FULL}, {}
    ),
}


def packed(files: dict[str, bytes]) -> bytes:
    """A package as npm packs it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")


def published(registry: Path, name: str, files: dict[str, bytes]) -> dict[str, str]:
    """Put a package into a registry; what the table of styles says of it."""
    content = packed(files)
    path = registry / name / "-" / f"{name.rpartition('/')[2]}-1.0.0.tgz"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return {"name": name, "version": "1.0.0", "integrity": integrity(content)}


def integrity(content: bytes) -> str:
    return f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"


class Registry(ThreadingHTTPServer):
    """A folder of packages, served to npm on loopback; it remembers which files were fetched."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fetched = folder, list[str]()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = registry.answer(unquote(self.path).strip("/"))
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def answer(self, path: str) -> bytes | None:
        """A package's file, or what npm asks for first: its versions."""
        if path.endswith(".tgz"):
            self.fetched.append(path)
            file = self.folder / path
            return file.read_bytes() if file.exists() else None
        tgz = f"{path}/-/{path.rpartition('/')[2]}-1.0.0.tgz"
        if not (self.folder / tgz).exists():
            return None
        dist = {"tarball": self.url + tgz, "integrity": integrity((self.folder / tgz).read_bytes())}
        version = {"name": path, "version": "1.0.0", "dist": dist}
        whole = {"name": path, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        return json.dumps(whole).encode()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as server:
        monkeypatch.setenv("npm_config_registry", server.url)
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
        monkeypatch.setenv("npm_config_fetch_retries", "0")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def table(registry: Registry) -> EmojiStyles:
    packages = {name: published(registry.folder, name, files) for name, files in PACKAGES.items()}
    credit = {"credit": "somebody", "homepage": "https://example.org"}

    def style(name: str, package: str, family: str, **more: str) -> dict[str, Any]:
        whole = {"name": name, "family": family, "licence": "MIT", "package": packages[package]}
        return whole | credit | more

    styles = [
        style("Raster", "raster", "raster", folder="img/64", licence="Apache-2.0"),
        style("Flat", "@icons/flat", "icons"),
        style("Other", "@icons/other", "icons", named_by="Flat"),
        style("Alike", "@icons/alike", "alike", licence="CC-BY-SA-4.0"),
    ]
    return EmojiStyles.model_validate({"names": packages["names"], "styles": styles})


def members(out: Path) -> dict[str, bytes]:
    contents = dict[str, bytes]()
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            contents |= {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    return contents


def rows_of(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    rows = [json.loads(text) for name, text in members(out).items() if name.endswith(".json")]
    return {(row["style"], row["concept"]): row for row in rows}


@needs_npm
def test_each_style_is_found_in_its_package_and_drawn(tmp_path: Path, table: EmojiStyles) -> None:
    out = tmp_path / "emoji"
    assert main(["--out", str(out), "--share-alike"], table) == 0
    rows, contents = rows_of(out), members(out)
    assert {*rows} == {
        ("Raster", "red apple"),
        ("Raster", "keycap: #"),  # code points without variation selector
        ("Flat", "red apple"),
        ("Flat", "piñata"),  # and not the k, which is two code points
        ("Other", "red apple"),  # by the code points of Flat
        ("Other", "piñata"),
        ("Alike", "red apple"),  # red-apple-1; the alias does not count
        ("Alike", "flag: Trinidad & Tobago"),  # and not the keycap, which is two emoji
    }
    apple = rows["Raster", "red apple"]
    assert contents[apple["file"]] == png("red")
    assert contents[f"{apple['key']}.txt"] == b"red apple, Raster style"
    assert apple == {
        "key": apple["key"],
        "caption": "red apple, Raster style",
        "concept": "red apple",
        "tags": "a, red",
        "style": "Raster",
        "family": "raster",
        "group": "food-drink",
        "split": "train",
        "licence": "Apache-2.0",
        "file": f"{apple['key']}.png",
    }
    drawn = Image.open(io.BytesIO(contents[rows["Flat", "piñata"]["file"]]))
    assert (drawn.mode, drawn.size) == ("RGBA", (96, 96))
    assert drawn.getpixel((24, 48)) == (0, 255, 0, 255)  # 16 × 8, centred in the square
    assert drawn.getpixel((24, 12)) == drawn.getpixel((72, 48)) == (0, 0, 0, 0)


@needs_npm
def test_equal_options_give_equal_tars_and_fetch_nothing_again(
    tmp_path: Path, registry: Registry, table: EmojiStyles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.emoji_tars.ROWS_PER_TAR", 3)
    words = ["--out", str(tmp_path / "emoji")]
    assert main([*words, "--share-alike"], table) == 0
    first = {path.name: path.read_bytes() for path in (tmp_path / "emoji").glob("*.tar")}
    assert [*sorted(first)] == ["00000.tar", "00001.tar", "00002.tar"]
    assert len(registry.fetched) == 5
    assert main([*words, "--share-alike"], table) == 0
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "emoji").glob("*.tar")}
    assert len(registry.fetched) == 5
    assert main([*words, "--without", "flat, Other"], table) == 0  # none of the old tars stays
    assert {style for style, _ in rows_of(tmp_path / "emoji")} == {"Raster"}
    assert [path.name for path in (tmp_path / "emoji").glob("*.tar")] == ["00000.tar"]


@needs_npm
def test_share_alike_styles_are_asked_for_and_all_are_credited(
    tmp_path: Path, registry: Registry, table: EmojiStyles
) -> None:
    out = tmp_path / "emoji"
    words = ["--out", str(out)]
    assert main(words, table) == 0
    assert {style for style, _ in rows_of(out)} == {"Raster", "Flat", "Other"}
    assert not any("alike" in path for path in registry.fetched)
    text = (out / "LICENCES.md").read_text()
    assert "| Raster | 2 | somebody | Apache-2.0 | https://example.org | raster 1.0.0 |" in text
    assert "Alike" not in text
    assert main([*words, "--share-alike"], table) == 0
    assert "Alike: adaptations have to be published" in (out / "LICENCES.md").read_text()


@needs_npm
def test_a_package_that_is_another_is_refused(
    tmp_path: Path, registry: Registry, table: EmojiStyles, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "emoji"
    words = ["--out", str(out), "--without", "Flat,Other"]
    path = registry.folder / "raster" / "-" / "raster-1.0.0.tgz"
    right = path.read_bytes()
    path.write_bytes(packed({"img/64/1f34e.png": png("black")}))
    assert main(words, table) == 1
    error = capsys.readouterr().err
    assert "npm fetched another raster 1.0.0 than this tool was written for" in error
    assert f"expected {table.styles[0].package.integrity}" in error
    assert [path.name for path in (out / ".packages").iterdir()] == ["names-1.0.0.tgz"]
    assert not [*out.glob("*.tar")]
    path.unlink()
    assert main(words, table) == 1
    assert "`npm pack raster@1.0.0` failed" in (error := capsys.readouterr().err)
    assert "E404" in error
    path.write_bytes(right)
    (out / ".packages" / "names-1.0.0.tgz").write_bytes(b"damaged")
    assert main(words, table) == 0


def test_without_npm_packages_can_be_put_into_the_folder(
    tmp_path: Path,
    registry: Registry,
    table: EmojiStyles,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "emoji"
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["--out", str(out), "--without", "Flat,Other"]
    assert main(words, table) == 1
    error = capsys.readouterr().err
    assert "npm, which fetches packages, is not installed" in error
    assert f"into {out / '.packages'}, as `npm pack` names them: names-1.0.0.tgz, raster" in error
    for path in registry.folder.rglob("*.tgz"):
        shutil.copy(path, out / ".packages")
    assert main(words, table) == 0
    assert {style for style, _ in rows_of(out)} == {"Raster"}
    assert not registry.fetched


def test_tars_of_the_user_stay(
    tmp_path: Path, table: EmojiStyles, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "00000.tar").write_text("mine")
    assert main(["--out", str(tmp_path)], table) == 2
    assert "has tars of yours, such as 00000.tar" in capsys.readouterr().err
    assert (tmp_path / "00000.tar").read_text() == "mine"


def test_bad_options_are_reported_together(
    tmp_path: Path, table: EmojiStyles, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = ["--out", str(tmp_path / "file"), "--without", "Flatt,nonsense,Raster,Flat,Other"]
    assert main(words, table) == 2
    error = capsys.readouterr().err
    for text in (
        "did you mean 'Flat'?",
        "no style 'nonsense'",
        "no style is left",
        "--out: cannot",
    ):
        assert text in error


def test_a_held_out_drawing_is_in_no_training_picture_of_its_family() -> None:
    styles = read_styles().styles
    concepts = [Concept(f"thing {n}", f"{n:x}", "", "") for n in range(400)]
    drawings = {
        style: {c.name: Drawing(b"", "png") for c in concepts[:: 1 + number % 3]}
        for number, style in enumerate(styles)
    }
    rows = emoji_rows(concepts, drawings)
    families: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        families[row.split, row.concept.name].add(row.style.family)
    held_out = [row for row in rows if row.split == "held_out"]
    assert 0.04 < len(held_out) / len(rows) < 0.1
    for row in held_out:
        training = families["train", row.concept.name]
        assert row.style.family not in training
        assert len(training) >= 4
    of_nine = emoji_rows(concepts, {s: drawings[s] for s in styles if not s.share_alike})
    split = {row.caption: row.split for row in rows}
    assert all(split[row.caption] == "held_out" for row in of_nine if row.split == "held_out")


@pytest.mark.slow
@needs_npm
def test_stage_1_reads_captions_and_split(tmp_path: Path, table: EmojiStyles) -> None:
    out = tmp_path / "emoji"
    assert main(["--out", str(out)], table) == 0
    path = tmp_path / "c.yaml"
    path.write_text(
        f"name: e\nroot: {tmp_path / 'data'}\ndownload: {{source: emoji, images: {out}, "
        "image_size: 64, image_format: png, near_duplicate_bits: null, drop_duplicates: false}\n"
    )
    config = load_config(path)
    run = RunInputs(config).stage_run("download", {})
    run_stage(
        run,
        RememberingTracker(),
        lambda folder: download(config.download, folder, RememberingTracker(), map_here),
    )
    stored = members(run.folder)
    captions = {text.decode() for name, text in stored.items() if name.endswith(".txt")}
    assert captions == {row["caption"] for row in rows_of(out).values()}
    splits = [json.loads(text)["split"] for name, text in stored.items() if name.endswith(".json")]
    assert splits == ["train"] * len(captions)
    red = next(name for name, text in stored.items() if text == b"red apple, Raster style")
    assert Image.open(io.BytesIO(stored[red.replace(".txt", ".png")])).getpixel((5, 5)) == (
        255,
        0,
        0,
    )
