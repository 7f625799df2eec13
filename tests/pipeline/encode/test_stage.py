"""Stage 2 on made-up image shards, with the real (small) CLIP and VAE."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet

from data_catalog.encodings import read_arrays, read_rows
from data_catalog.excluded_rows import write_dropped
from data_catalog.images import PackedPair
from data_catalog.shapes import dataset as shapes
from data_catalog.storage.manifest import Manifest, ManifestError, read_manifest, write_manifest
from pipeline.compute.shard_map import map_in_pool
from pipeline.config.encode import EncodeConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.encode.caption_encoder import CaptionTokens
from pipeline.encode.image_batches import in_lanes, packed_batches, unpack
from pipeline.encode.shard_encoder import ShardEncoder
from pipeline.encode.stage import encode
from pipeline.stages.contract import MapShards, Output, StageFailed
from tests.support.image_shards import images_manifest, make_images, write_tar
from tests.support.mapping import map_here
from tests.support.tracker import RememberingTracker
from tld_model.encoders.clip import Clip
from tld_model.encoders.pretrained import EncoderError
from tld_model.encoders.vae import ImageCodec, load_image_codec


def config_with(**settings: Any) -> EncodeConfig:
    return EncodeConfig(**{"vae": "shapes-vae", "clip": "shapes-clip", "device": "cpu", **settings})


def encode_into(
    out: Path, images: Manifest, map_shards: MapShards = map_here, **settings: Any
) -> Output:
    out.mkdir(exist_ok=True)
    return encode(images, config_with(**settings), out, RememberingTracker(), map_shards)


def all_of_them(_packed: PackedPair) -> bool:
    return True


def no_tokens(_captions: Sequence[str]) -> CaptionTokens:
    return CaptionTokens({})


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.suffix in (".npz", ".parquet")
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def encoded(images: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("encoded")
    encode_into(out, images)
    return out


@pytest.mark.slow
def test_one_worker_and_two_give_identical_bytes(
    images: Manifest, encoded: Path, tmp_path: Path
) -> None:
    encode_into(tmp_path / "two", images, map_in_pool, workers=2)
    assert contents(tmp_path / "two") == contents(encoded)


def test_the_size_of_a_batch_shows_in_no_more_than_the_last_bit(
    images: Manifest, encoded: Path, tmp_path: Path
) -> None:
    encode_into(tmp_path / "sevens", images, batch_size=7)
    for shard in images.shards:
        one, other = (
            read_arrays(folder / f"{shard.name}.npz") for folder in (encoded, tmp_path / "sevens")
        )
        assert np.abs(one.latents.astype(int) - other.latents.astype(int)).max() <= 1
        np.testing.assert_allclose(
            one.text.astype(float), other.text.astype(float), rtol=2**-10, atol=1e-4
        )


def test_a_damaged_encoded_shard_is_redone_alone(
    images: Manifest, encoded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    encode_into(out, images)
    (out / "00001.npz").write_bytes(b"half")
    untouched = (out / "00000.npz").stat().st_mtime_ns
    encode_into(out, images)
    assert contents(out) == contents(encoded)
    assert (out / "00000.npz").stat().st_mtime_ns == untouched


def test_a_caption_is_encoded_once_however_often_it_stands_in_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings = list(shapes.drawings(10, held_out=False, seed=3))
    write_tar(
        tmp_path / "00000.tar", 0, ["one", "two"] * 5, [drawing.pixels() for drawing in drawings]
    )
    seen: list[str] = []
    tokenize = Clip.tokenize

    def remember(self: Clip, captions: Sequence[str]) -> Any:
        seen.extend(captions)
        return tokenize(self, captions)

    monkeypatch.setattr(Clip, "tokenize", remember)
    ShardEncoder(tmp_path, config_with(batch_size=3), tmp_path)("00000")
    assert seen == ["one", "two"]
    text = read_arrays(tmp_path / "00000.npz").text
    assert (text[0::2] == text[0]).all()
    assert (text[1::2] == text[1]).all()
    assert (text[0] != text[1]).any()


def test_a_damaged_tar_is_refused_with_the_way_out(images: Manifest, tmp_path: Path) -> None:
    tar = tmp_path / "00000.tar"
    tar.write_bytes(images.file("00000.tar").read_bytes()[:3000])
    with pytest.raises(ManifestError, match=r"00000\.tar is damaged .*catalog verify"):
        ShardEncoder(tmp_path, config_with(), tmp_path)("00000")


@pytest.mark.parametrize("where", [b"background", b"0000000.txt"])
def test_a_flipped_bit_is_refused_whatever_it_leads_to(
    images: Manifest, tmp_path: Path, where: bytes
) -> None:
    """A letter of a caption: else its encodings would count as whole, and stay wrong when the tar
    is mended. Or of a name in the tar, at which its reading ends in the middle of a pair."""
    tar = tmp_path / "00000.tar"
    content = bytearray(images.file(tar.name).read_bytes())
    content[content.index(where)] ^= 1
    tar.write_bytes(content)
    record = images.shards[0].files[tar.name]
    with pytest.raises(ManifestError, match=r"00000\.tar has other content .*catalog verify"):
        ShardEncoder(tmp_path, config_with(), tmp_path, tars={"00000": record})("00000")
    assert not list(tmp_path.glob("*_stats.json"))


def test_a_picture_that_is_none_any_more_is_refused_by_name(
    images: Manifest, tmp_path: Path
) -> None:
    whole = images.file("00000.tar").read_bytes()
    start = whole.index(b"\x89PNG")
    (tmp_path / "00000.tar").write_bytes(whole[:start] + b"nothing" + whole[start + 7 :])
    with pytest.raises(
        ManifestError, match=r"0000000\.png is not an image any more.*catalog verify"
    ):
        ShardEncoder(tmp_path, config_with(), tmp_path)("00000")


def test_lanes_keep_the_order_take_few_items_ahead_and_leave_no_thread() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    def slow_at_first(number: int) -> int:
        if number == 0:
            threading.Event().wait(0.05)
        return number * number

    before = threading.active_count()
    squares = in_lanes(slow_at_first, numbers(), threads=3)
    assert next(squares) == 0
    assert len(taken) == 4
    squares.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert list(in_lanes(slow_at_first, range(20), threads=3)) == [
        number * number for number in range(20)
    ]


def test_what_goes_wrong_in_a_lane_or_in_the_reader_is_raised_to_the_encoder() -> None:
    def breaks() -> Iterator[int]:
        yield 1
        raise ManifestError("damaged")

    with pytest.raises(ManifestError, match="damaged"):
        list(in_lanes(str, breaks(), threads=2))
    with pytest.raises(ValueError, match="invalid literal"):
        list(in_lanes(int, ["1", "two", "3"], threads=2))


def test_the_numbers_do_not_depend_on_how_many_cores_there_are(
    images: Manifest, encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(5)))
    encode_into(tmp_path / "five", images)
    assert torch.get_num_threads() == threads
    assert contents(tmp_path / "five") == contents(encoded)


def test_only_the_members_of_a_pair_are_read(images: Manifest) -> None:
    (packed,) = packed_batches(images.file("00001.tar"), 64, all_of_them)
    batch = unpack(packed, no_tokens)
    assert batch.pixels.shape == (9, 3, 64, 64)
    assert batch.rows["key"][0] == "0000012"


def test_float16_and_ranges_by_channel_come_back_within_their_bound(
    images: Manifest, tmp_path: Path
) -> None:
    pixels = unpack(
        next(packed_batches(images.file("00000.tar"), 64, all_of_them)), no_tokens
    ).pixels
    latents = load_image_codec("shapes-vae", "cpu").encode(pixels)
    ways: dict[str, dict[str, Any]] = {
        "half": {"latent_dtype": "float16"},
        "channels": {"latent_clip": (12.0, 2.0, 9.0, 9.0)},
    }
    for name, settings in ways.items():
        output = encode_into(tmp_path / name, images, **settings)
        manifest = images_manifest(tmp_path / name, output.shards).model_copy(
            update={"figures": output.figures}
        )
        write_manifest(manifest)  # through JSON, as training reads it
        read = read_manifest(tmp_path / name)
        assert read
        back = open_dataset(read).batch(np.arange(12)).latents
        assert (back - latents).abs().max().item() <= read.figures["quantization_bound"] * 1.001
        assert read.figures["clipped_fraction"] == 0


def test_the_error_of_each_shard_is_recorded_in_units_of_the_spread(
    images: Manifest, encoded: Path
) -> None:
    output = encode_into(encoded, images)
    for shard in output.shards:
        figures = shard.figures
        levels = read_arrays(encoded / f"{shard.name}.npz").latents
        stored = (levels.astype(float) - 128) * config_with().latent_clip / 127
        assert figures["latent_std"] == pytest.approx(stored.std(), rel=0.01)
        assert figures["quantization_rmse_sigma"] == pytest.approx(
            figures["quantization_rmse"] / figures["latent_std"]
        )
        rows = read_rows(encoded, shard.name, ["quantization_rmse", "clipped_fraction"]).to_pydict()
        rmse = np.sqrt(np.square(rows["quantization_rmse"]).mean())
        assert rmse == pytest.approx(figures["quantization_rmse"], rel=1e-4)
        assert np.mean(rows["clipped_fraction"]) == pytest.approx(figures["clipped_fraction"])
    scaling_factor = load_image_codec("shapes-vae", "cpu").scaling_factor
    codec = {"scaling_factor": scaling_factor, "shift": 0.0, "latent_channels": 4, "downscale": 8}
    assert output.figures["codec"] == codec
    assert len(output.figures["channel_std"]) == 4


def test_a_draw_from_the_posterior_follows_from_the_key_alone(
    images: Manifest, encoded: Path, tmp_path: Path
) -> None:
    encode_into(tmp_path / "a", images, posterior="sample", latent_dtype="float16")
    encode_into(tmp_path / "b", images, posterior="sample", latent_dtype="float16", batch_size=5)
    encode_into(tmp_path / "mean", images, latent_dtype="float16")
    a, b, mean = (
        torch.from_numpy(read_arrays(tmp_path / x / "00000.npz").latents.copy())
        for x in ("a", "b", "mean")
    )
    torch.testing.assert_close(a, b, rtol=2**-9, atol=1e-3)
    assert not torch.equal(a, mean)
    assert contents(encoded).keys() == contents(tmp_path / "a").keys()


def test_pairs_that_clip_finds_poor_are_left_out_and_listed_with_the_reason(
    images: Manifest, encoded: Path, tmp_path: Path
) -> None:
    scores = read_rows(encoded, "00000", ["key", "clip_score"]).to_pylist()
    least = sorted(row["clip_score"] for row in scores)[2] + 1e-3
    output = encode_into(tmp_path / "out", images, min_clip_score=least)
    shard = output.shards[0]
    reason = f"clip score below {least:g}"
    assert shard.rows == 9
    assert shard.figures["dropped"] == {reason: 3}
    account = output.figures["account"]
    assert account["dropped"][reason] >= 3
    assert account["downloaded"] == account["encoded"] + account["dropped"][reason]
    dropped = parquet.read_table(tmp_path / "out/00000.dropped.parquet").to_pylist()
    assert [row["key"] for row in dropped] == [
        row["key"] for row in scores if row["clip_score"] < least
    ]
    assert dropped[0].keys() == {"key", "url", "caption", "reason"}
    assert "00000.dropped.parquet" in shard.files
    rows = read_rows(tmp_path / "out", "00000", ["key", "clip_score"]).to_pylist()
    assert rows == [row for row in scores if row["clip_score"] >= least]
    arrays = read_arrays(tmp_path / "out/00000.npz")
    assert [key.decode() for key in arrays.key] == [row["key"] for row in rows]


@pytest.mark.parametrize("overflown", [1, 12])
def test_pictures_whose_numbers_overflow_are_left_out_unless_all_do(
    images: Manifest, tmp_path: Path, overflown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in float16 on a GPU, which is not at hand: the encoder is made to give NaN for the
    brightest pictures."""
    encode, seen = ImageCodec.encode, list[float]()

    def brightness(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().mean(dim=(1, 2, 3))

    def watched(
        self: ImageCodec, pixels: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        seen.extend(brightness(pixels).tolist())
        return encode(self, pixels, noise)

    def overflowing(
        self: ImageCodec, pixels: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        return encode(self, pixels, noise).where(
            (brightness(pixels) < limit)[:, None, None, None], float("nan")
        )

    monkeypatch.setattr(ImageCodec, "encode", watched)
    ShardEncoder(images.folder, config_with(), tmp_path)("00000")
    limit = sorted(seen)[-overflown]
    monkeypatch.setattr(ImageCodec, "encode", overflowing)
    encoder = ShardEncoder(images.folder, config_with(), tmp_path / "out")
    (tmp_path / "out").mkdir()
    if overflown == 12:
        with pytest.raises(EncoderError, match="no finite numbers of any of 12 images"):
            encoder("00000")
        return
    shard = encoder("00000")
    assert (shard.rows, shard.figures["dropped"]) == (
        11,
        {"the encoders make no finite numbers of it": 1},
    )
    assert np.isfinite(list(shard.figures["sums"]["latent"])).all()


def test_captions_that_are_too_large_for_float16_are_left_out(
    images: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No real CLIP at hand makes such; its embeddings are scaled."""
    encode = Clip.encode_tokens

    def too_large(self: Clip, tokens: Mapping[str, torch.Tensor]) -> torch.Tensor:
        pooled = encode(self, tokens)
        return torch.cat([1e6 * pooled[:1], pooled[1:]])

    monkeypatch.setattr(Clip, "encode_tokens", too_large)
    shard = ShardEncoder(images.folder, config_with(batch_size=12), tmp_path)("00000")
    assert shard.figures["dropped"] == {
        "the encoders make no finite numbers of it": 12 - shard.rows
    }
    assert 0 < shard.rows < 12
    assert np.isfinite(read_arrays(tmp_path / "00000.npz").text).all()


def test_nothing_left_to_encode_is_an_error_with_the_reasons(
    images: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(StageFailed, match=r"no image is left(.|\n)*21 × clip score below 100"):
        encode_into(tmp_path / "out", images, min_clip_score=100)


def test_pairs_that_the_download_dropped_are_not_encoded(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images")
    row = {"key": "0000003", "url": "http://x/3", "caption": "", "reason": "duplicate"}
    write_dropped(images.folder, "00000", [row])
    encoder = ShardEncoder(images.folder, config_with(), tmp_path)
    shard = encoder("00000")
    assert shard.rows == 11
    assert b"0000003" not in read_arrays(tmp_path / "00000.npz").key


def test_pictures_are_let_go_when_their_encodings_are_finished(
    encoded: Path, tmp_path: Path
) -> None:
    images = make_images(tmp_path / "images")
    write_manifest(images)
    encode_into(tmp_path / "out", images, keep_images=False)
    assert not list(images.folder.glob("*.tar"))
    assert contents(tmp_path / "out") == contents(encoded)
    assert read_manifest(images.folder) == images, "an output whose files were let go is whole"
    encode_into(tmp_path / "out", images, keep_images=False)
    with pytest.raises(
        StageFailed,
        match=r"2 of 2 image shards \(00000\.tar …\) were deleted after .*tld download … --force",
    ):
        encode_into(tmp_path / "other", images, posterior="sample")


def test_pictures_that_vanish_otherwise_are_damage(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images")
    write_manifest(images)
    images.file("00001.tar").unlink()
    with pytest.raises(ManifestError, match=r"00001\.tar is missing"):
        read_manifest(images.folder)
