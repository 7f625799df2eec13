"""Captions in stage 2 and in batches: several a picture, and by token. Real (small) CLIP and VAE,
real img2dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from data_catalog.encodings import EncodingsError, read_arrays, read_rows
from data_catalog.figures import EncodingsFigures
from data_catalog.shapes import dataset as shapes
from data_catalog.storage.manifest import Manifest
from pipeline.config.download import DownloadConfig
from pipeline.config.encode import EncodeConfig
from pipeline.dataset.caption_sampling import caption_sampler
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.download.stage import download
from pipeline.encode.stage import encode
from tests.support import images as web
from tests.support.image_shards import images_manifest, make_images, read_image_pairs
from tests.support.mapping import map_here
from tests.support.tracker import RememberingTracker
from tld_model.encoders.text_encoder import load_text_encoder


def encoded(folder: Path, images: Manifest, **settings: Any) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    encoders = {"vae": "shapes-vae", "clip": "shapes-clip", "device": "cpu"}
    config = EncodeConfig(**(encoders | settings))
    output = encode(images, config, folder, RememberingTracker(), map_here)
    return images_manifest(folder, output.shards).model_copy(update={"figures": output.figures})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_images(tmp_path_factory.mktemp("images"))


def test_the_states_of_tokens_are_stored_without_padding_beside_what_is_stored_anyway(
    images: Manifest, tmp_path: Path
) -> None:
    pooled = encoded(tmp_path / "pooled", images)
    tokens = encoded(
        tmp_path / "tokens", images, text="tokens", batch_size=5, token_dtype="float16"
    )
    encode_text = load_text_encoder("shapes-clip", "cpu", "tokens")
    longest = 0
    for shard in tokens.shards:
        arrays, plain = (
            read_arrays(output.file(f"{shard.name}.npz")) for output in (tokens, pooled)
        )
        captions = read_rows(tokens.folder, shard.name, ["caption"])["caption"].to_pylist()
        assert arrays.tokens is not None
        assert arrays.token_start is not None
        assert plain.tokens is None
        np.testing.assert_allclose(arrays.text, plain.text, atol=2e-3)
        for number, caption in enumerate(captions):
            states = arrays.tokens[arrays.token_start[number] : arrays.token_start[number + 1]]
            expected = encode_text([caption])[0]
            assert len(states) == len(encode_text.tokenizer(caption).input_ids), (
                "BOS, the caption's tokens, EOS"
            )
            np.testing.assert_allclose(states, expected.numpy(), atol=2e-2)
            of_eos = encode_text.model.text_projection(
                torch.from_numpy(states[-1].astype(np.float32))
            )
            np.testing.assert_allclose(
                of_eos.detach(), arrays.text[number], atol=3e-2, err_msg="what CLIP pools"
            )
            longest = max(longest, len(states))
    assert tokens.figures["token_dim"] == encode_text.dim == 128
    assert tokens.figures["longest_caption"] == longest
    assert "token_dim" not in pooled.figures


def test_batches_of_token_level_text_are_padded_with_zeros_to_one_length(
    images: Manifest, tmp_path: Path
) -> None:
    manifest = encoded(tmp_path, images, text="tokens")
    numbers = np.array([20, 0, 11, 12])
    batch = open_dataset(manifest, "tokens").batch(numbers)
    assert batch.text.shape == (4, manifest.figures["longest_caption"], 128)
    captions = pd.concat(pd.read_parquet(tmp_path / f"0000{shard}.parquet") for shard in range(2))[
        "caption"
    ].iloc
    expected = load_text_encoder("shapes-clip", "cpu", "tokens")(
        [captions[number] for number in numbers]
    )
    torch.testing.assert_close(batch.text[:, : expected.shape[1]], expected, atol=2e-2, rtol=0)
    assert torch.equal(batch.text.any(dim=2)[:, : expected.shape[1]], expected.any(dim=2))
    assert not batch.text[:, expected.shape[1] :].any()
    assert open_dataset(manifest).batch(numbers).text.shape == (4, 64)
    pooled = EncodingsFigures.of(manifest).model_copy(update={"token_dim": None})
    of_pooled = manifest.model_copy(update={"figures": pooled.model_dump(mode="json")})
    with pytest.raises(
        EncodingsError, match=r"contains no token-level text: set encode\.text=tokens"
    ):
        open_dataset(of_pooled, "tokens")


def test_captions_stay_with_their_pairs_where_poor_ones_are_left_out(
    images: Manifest, tmp_path: Path
) -> None:
    everything = encoded(tmp_path / "all", images, text="tokens")
    scores = read_rows(everything.folder, "00000", ["clip_score"])["clip_score"].to_pylist()
    filtered = encoded(
        tmp_path / "kept", images, text="tokens", min_clip_score=sorted(scores)[3] + 1e-3
    )
    before = {row["key"]: number for number, row in enumerate(_rows(everything))}
    numbers = np.array([before[row["key"]] for row in _rows(filtered)])
    assert len(numbers) < 21
    ours, theirs = (open_dataset(output, "tokens") for output in (filtered, everything))
    np.testing.assert_array_equal(
        ours.batch(np.arange(len(numbers))).text[:, :9], theirs.batch(numbers).text[:, :9]
    )


def _rows(output: Manifest) -> list[dict[str, Any]]:
    return [
        row
        for shard in output.shards
        for row in read_rows(output.folder, shard.name, ["key"]).to_pylist()
    ]


def test_several_captions_travel_from_the_table_to_the_batches(tmp_path: Path) -> None:
    captions = [
        drawing.attributes.caption for drawing in shapes.drawings(24, held_out=False, seed=1)
    ]
    rows = [
        {
            "url": f"/good/{i}.jpg",
            "text": captions[i],
            "alt": captions[8 + i] if i % 2 else "",
            "long": captions[16 + i],
        }
        for i in range(8)
    ]
    rows[3]["long"] = captions[3]  # the same as its main one: encoded once
    rows[5]["long"] = "x" * 2000
    with web.serve_images() as (address, _):
        pd.DataFrame(rows).assign(url=lambda table: address + table["url"]).to_csv(
            tmp_path / "urls.csv", index=False
        )
        config = DownloadConfig(
            urls=str(tmp_path / "urls.csv"),
            caption_column="text",
            more_caption_columns=("alt", "long"),
            image_size=64,
            shard_size=5,
            allowed_networks=("127.0.0.0/8",),
            near_duplicate_bits=None,
        )
        output = download(config, tmp_path, RememberingTracker(), map_here)
    images = images_manifest(tmp_path, output.shards)
    images = images.model_copy(update={"settings": config.model_dump(mode="json")})
    pairs = [
        pair
        for shard in images.shards
        for pair in read_image_pairs(images.file(f"{shard.name}.tar"))
    ]
    assert [pair.caption for pair in pairs] == captions[:8]
    expected = [
        (row["alt"] or None, row["long"] if len(row["long"]) < 1000 else None) for row in rows
    ]
    assert [pair.more_captions for pair in pairs] == expected

    manifest = encoded(tmp_path / "encoded", images, text="tokens")
    frame = pd.concat(
        pd.read_parquet(tmp_path / "encoded" / f"0000{shard}.parquet") for shard in range(2)
    )
    assert [tuple(more) for more in frame["more_captions"]] == expected
    assert manifest.figures["caption_columns"] == ["text", "alt", "long"]
    assert manifest.figures["captions"] == 19
    first = read_arrays(manifest.file("00000.npz"))
    assert first.text_start is not None
    assert first.text_column is not None
    assert first.text_start.tolist() == [0, 2, 5, 7, 10, 12]
    assert first.text_column.tolist() == [0, 2, 0, 1, 2, 0, 2, 0, 1, 2, 0, 2]
    np.testing.assert_array_equal(first.text[7], first.text[9])

    # Main captions unless epochs are told; then one of those that a pair has.
    draw = caption_sampler(("text", "alt", "long"), {"text": 0}, seed=3)
    for form in ("pooled", "tokens"):
        batches, encode_text = (
            open_dataset(manifest, form),
            load_text_encoder("shapes-clip", "cpu", form),
        )
        numbers = np.arange(8)
        _same(batches.batch(numbers).text, encode_text(captions[:8]))
        drawing = replace(batches, sampler=draw)
        shown = [
            (alt or long or "", long or alt) for alt, long in expected
        ]  # by the epoch: both are drawn in ten
        seen = [set[int](), set[int]()]
        for epoch in range(10):
            text = drawing.stored_batch(numbers, np.full(8, epoch)).on("cpu").text
            for number, choices in enumerate(shown):
                either = encode_text([choice or captions[number] for choice in choices])
                errors = [_error(text[number], one) for one in either]
                assert min(errors) < 0.05
                seen[int(np.argmin(errors))].add(number)
        assert seen[0] >= {1, 3, 7}
        assert seen[1] >= {1, 7}


def _error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference; padding may be of another length."""
    if ours.ndim > 1:
        length = min(len(ours), len(theirs))
        ours, theirs = ours[:length], theirs[:length]
    return float((ours - theirs).abs().max())


def _same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert max(map(_error, ours, theirs)) < 0.05
