"""Mirrored images, from the images to the batches of a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_catalog.encodings import EncodingsError, read_arrays
from data_catalog.storage.manifest import Manifest, read_manifest, write_manifest
from pipeline.config.encode import EncodeConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.pair_draws import flips_of_pairs
from pipeline.encode.posterior_noise import noise_of
from pipeline.encode.stage import encode
from tests.support.image_shards import images_manifest, make_images, read_image_pairs
from tests.support.mapping import map_here
from tests.support.tracker import RememberingTracker
from tld_model.encoders.vae import load_image_codec


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_images(tmp_path_factory.mktemp("images"))


def encoded(out: Path, images: Manifest, **settings: Any) -> Manifest:
    out.mkdir(parents=True)
    config = EncodeConfig(vae="shapes-vae", clip="shapes-clip", device="cpu", **settings)
    output = encode(images, config, out, RememberingTracker(), map_here)
    manifest = images_manifest(out, output.shards)
    write_manifest(manifest.model_copy(update={"stage": "encode", "figures": output.figures}))
    read = read_manifest(out)
    assert read
    return read


@pytest.mark.parametrize("posterior", ["mean", "sample"])
def test_both_latents_are_stored_and_the_first_is_what_it_was(
    posterior: str, images: Manifest, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"posterior": posterior, "latent_dtype": "float16"}
    plain = encoded(tmp_path / "plain", images, **settings)
    manifest = encoded(tmp_path / "flips", images, flips=True, **settings)
    assert manifest.figures["flips"] is True
    assert "flips" not in plain.figures
    assert manifest.digest != plain.digest
    same = "latent_mean", "latent_std", "quantization_rmse", "round_trip_psnr"
    assert [manifest.figures[name] for name in same] == [plain.figures[name] for name in same]
    before, after = (read_arrays(m.file("00000.npz")) for m in (plain, manifest))
    assert before.flipped is None
    assert after.flipped is not None
    np.testing.assert_array_equal(before.latents, after.latents)
    pairs = list(read_image_pairs(images.file("00000.tar")))
    mirrored = torch.from_numpy(np.stack([pair.image for pair in pairs])[:, :, ::-1].copy())
    noise = None
    if posterior == "sample":
        noise = noise_of([pair.key for pair in pairs], after.latents.shape[1:]).flip(3)
    codec = load_image_codec("shapes-vae", "cpu")
    expected = codec.encode(mirrored.permute(0, 3, 1, 2), noise).half().numpy()
    np.testing.assert_allclose(
        after.flipped.astype(float), expected.astype(float), rtol=2e-3, atol=2e-3
    )


def test_training_takes_one_of_the_two_and_held_out_pairs_the_first(
    images: Manifest, tmp_path: Path
) -> None:
    manifest = encoded(tmp_path / "flips", images, flips=True)
    pairs = replace(open_dataset(manifest), seed=5)
    numbers = np.arange(21)[::-1].copy()
    shards = [read_arrays(manifest.file(f"{shard.name}.npz")) for shard in manifest.shards]
    both = [np.concatenate([s.latents for s in shards])[numbers]]
    both.append(np.concatenate([s.flipped for s in shards if s.flipped is not None])[numbers])
    held_out = pairs.stored_batch(numbers).latents.numpy()
    np.testing.assert_array_equal(held_out, both[0])
    for epoch in range(3):
        epochs = np.full(21, epoch)
        flips = flips_of_pairs(5, numbers, epochs)
        assert 0 < flips.sum() < 21
        expected = np.where(flips[:, None, None, None], both[1], both[0])
        batch = pairs.stored_batch(numbers, epochs).latents.numpy()
        np.testing.assert_array_equal(batch, expected)


def test_shards_with_and_without_flips_do_not_mix(images: Manifest, tmp_path: Path) -> None:
    plain, flips = encoded(tmp_path / "a", images), encoded(tmp_path / "b", images, flips=True)
    (tmp_path / "b/00001.npz").write_bytes(plain.file("00001.npz").read_bytes())
    with pytest.raises(EncodingsError, match="does not fit the manifest or the other"):
        open_dataset(flips)
