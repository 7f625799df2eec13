"""One pair through every room: the table "The walk of one pair" in the documentation, executed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from data_catalog.encodings import read_arrays, read_rows
from data_catalog.input_rows import open_rows
from data_catalog.shapes import dataset as shapes
from data_catalog.storage.manifest import Manifest
from pipeline.config.load import load_config
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.split import split_pairs
from pipeline.download.stage import download
from pipeline.encode.stage import encode
from pipeline.evaluate.stage import evaluate
from pipeline.generate.generator import load_generator
from pipeline.stages.contract import Output
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from pipeline.train.stage import train
from tests.support.image_shards import read_image_pairs
from tests.support.mapping import map_here
from tests.support.small import TINY, small
from tests.support.tracker import RememberingTracker
from tld_model.encoders.clip import load_clip
from tld_model.encoders.text_encoder import load_text_encoder
from tld_model.encoders.vae import load_image_codec


def test_the_walk_of_one_pair(tmp_path: Path, track: RememberingTracker) -> None:
    config = load_config(TINY, small(tmp_path, download__limit=20))

    # a row of a table -> a checked (url, caption)
    shard = next(open_rows(config.download.rows).shards(20))
    row = shard.pairs.to_pylist()[1]
    drawing = shapes.Drawing.from_url(row["url"])
    assert drawing
    assert row["caption"] == drawing.attributes.caption

    # (url, caption) -> png + txt + json in 00000.tar -> ImagePair
    def run(stage: str, parents: dict[str, Manifest], work: Callable[[Path], Output]) -> Manifest:
        return run_stage(RunInputs(config).stage_run(stage, parents), track, work)

    images = run("download", {}, lambda out: download(config.download, out, track, map_here))
    pair = list(read_image_pairs(images.file("00000.tar")))[1]
    assert (pair.key, pair.url, pair.caption) == ("0000001", row["url"], row["caption"])
    np.testing.assert_array_equal(pair.image, drawing.pixels())

    # ImagePair -> latent [4, 8, 8] and embedding [64] -> uint8 -> row 1 of parquet and npz
    work = partial(encode, images, config.encode, track=track, map_shards=map_here)
    encodings = run("encode", {"download": images}, work)
    told = read_rows(encodings.folder, "00000").to_pylist()[1]
    arrays = read_arrays(encodings.file("00000.npz"))
    assert told["key"] == pair.key == arrays.key[1].decode()
    assert arrays.latents[1].shape == (4, 8, 8)
    codec, clip = load_image_codec("shapes-vae", "cpu"), load_clip("shapes-clip", "cpu")
    text = clip.encode_text([pair.caption])[0]
    np.testing.assert_allclose(arrays.text[1].astype(np.float32), text.numpy(), atol=2e-2)
    torch.testing.assert_close(load_text_encoder("shapes-clip", "cpu")([pair.caption])[0], text)

    # row 1 -> (latent, text) in a batch
    batch = open_dataset(encodings).batch(np.array([1]))
    latent = codec.encode(torch.from_numpy(pair.image.copy()).permute(2, 0, 1)[None])
    clip_at = config.encode.latent_clip
    assert isinstance(clip_at, float)
    step = clip_at / 127
    torch.testing.assert_close(
        batch.latents, latent.clamp(-clip_at, clip_at), atol=step / 2 + 1e-4, rtol=0
    )
    assert 1 in split_pairs(encodings, 0.02).train

    # (latent, text) -> weights -> denoiser.safetensors
    work = partial(train, encodings, config.train, config.model, track=track)
    model = run("train", {"encode": encodings}, work)
    assert [name for name in track.artifacts if name.startswith("samples/")]
    losses = [values["loss"] for _, values in track.heard if "loss" in values]
    assert len(losses) == 6

    # a held-out caption -> a prompt -> pixels -> a tile of grid.png
    work = partial(evaluate, encodings, model, config.evaluate, track=track)
    report = run("evaluate", {"encode": encodings, "train": model}, work)
    assert report.rows == 2
    assert report.file("grid.png").stat().st_size > 0
    generate = load_generator(
        model.file("denoiser.safetensors"), "shapes-vae", "shapes-clip", "cpu"
    )
    assert generate([pair.caption]).shape == (1, 64, 64, 3)
