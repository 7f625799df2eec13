"""Samples of the VAE's posterior, from the images to the steps of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_catalog.encodings import EncodingsError, read_arrays
from data_catalog.storage.manifest import Manifest
from pipeline.compute.ranks import ALONE, Ranks
from pipeline.config.encode import EncodeConfig
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.mixture import TrainingPairs
from pipeline.encode.latent_encoder import latent_encoder
from pipeline.train.loss import step_randomness
from pipeline.train.step_inputs import step_inputs
from tests.pipeline.dataset.test_flips import encoded
from tests.support.image_shards import make_images, read_image_pairs
from tests.support.vaes import save_vae
from tld_model.config import DenoiserConfig
from tld_model.encoders.pretrained import EncoderError
from tld_model.encoders.vae import load_image_codec

MODEL = DenoiserConfig(latent_size=8, text_dim=64, width=64, layers=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def spread(images: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("out") / "both"
    return encoded(folder, images, posterior="spread", flips=True)


def test_mean_and_deviation_of_both_images_are_stored(
    images: Manifest, spread: Manifest, tmp_path: Path
) -> None:
    plain = read_arrays(encoded(tmp_path / "plain", images, flips=True).file("00000.npz"))
    arrays = read_arrays(spread.file("00000.npz"))
    np.testing.assert_array_equal(arrays.latents, plain.latents)
    np.testing.assert_array_equal(arrays.flipped, plain.flipped)
    codec = load_image_codec("shapes-vae", "cpu")
    pixels = np.stack([pair.image for pair in read_image_pairs(images.file("00000.tar"))])
    for stored, columns in ((arrays.latents_spread, 1), (arrays.flipped_spread, -1)):
        assert stored is not None
        oriented = torch.from_numpy(pixels[:, :, ::columns].copy()).permute(0, 3, 1, 2)
        with torch.no_grad():
            std = codec.vae.encode(oriented.float() / 127.5 - 1).latent_dist.std
        expected = std * codec.scaling_factor
        stored_std = torch.from_numpy(np.exp((stored.astype(float) - 1) * 14 / 254 - 12))
        assert ((stored_std - expected).abs() / expected).max().item() < 0.03


def inputs_from(manifest: Manifest, step: int, ranks: Ranks, steps: int = 6) -> list[Any]:
    config = TrainConfig(batch_size=4, steps=steps, seed=3, warmup_steps=1)
    pairs = TrainingPairs.alone(open_dataset(manifest), np.arange(4, 21))
    return list(step_inputs(pairs, MODEL, config, step, ranks))


def test_each_step_takes_new_samples_which_a_resume_repeats(spread: Manifest) -> None:
    inputs = inputs_from(spread, 0, ALONE)
    batches = [batch.on("cpu", choices.posterior).latents for batch, choices in inputs]
    means = [batch.on("cpu").latents for batch, _ in inputs]
    for sampled, mean, (batch, choices) in zip(batches, means, inputs, strict=True):
        assert batch.spread is not None
        std = np.exp((batch.spread.numpy().astype(float) - 1) * 14 / 254 - 12)
        expected = torch.from_numpy(std).float() * choices.posterior
        torch.testing.assert_close(sampled - mean, expected, rtol=1e-3, atol=1e-5)
        assert (sampled != mean).float().mean() > 0.9
    for sampled, (batch, choices) in zip(batches[2:], inputs_from(spread, 2, ALONE), strict=True):
        assert torch.equal(batch.on("cpu", choices.posterior).latents, sampled)


def test_held_out_pairs_stay_at_the_mean_and_other_draws_are_what_they_were(
    images: Manifest, spread: Manifest, tmp_path: Path
) -> None:
    plain = open_dataset(encoded(tmp_path / "plain", images))
    numbers = np.arange(21)
    assert torch.equal(open_dataset(spread).batch(numbers).latents, plain.batch(numbers).latents)
    config = TrainConfig(batch_size=4, steps=6, warmup_steps=1)
    without = step_randomness(config, MODEL, 4, 2)
    with_noise = step_randomness(config, MODEL, 4, 2, samples_posterior=True)
    assert without.posterior is None
    assert with_noise.posterior is not None
    for name in ("sigma", "noise", "dropped"):
        assert torch.equal(getattr(without, name), getattr(with_noise, name))
    assert not torch.equal(with_noise.posterior, with_noise.noise)
    part = with_noise.rows(slice(1, 3)).on("cpu").posterior
    assert part is not None
    assert torch.equal(part, with_noise.posterior[1:3])


def test_shards_with_and_without_spread_do_not_mix(images: Manifest, tmp_path: Path) -> None:
    plain = encoded(tmp_path / "a", images)
    both = encoded(tmp_path / "b", images, posterior="spread")
    (tmp_path / "b/00001.npz").write_bytes(plain.file("00001.npz").read_bytes())
    with pytest.raises(EncodingsError, match="does not fit the manifest or the other"):
        open_dataset(both)


def test_a_vae_without_posterior_has_no_spread(tmp_path: Path) -> None:
    vae = save_vae("AutoencoderTiny", tmp_path / "vae")
    config = EncodeConfig(vae=vae, clip="shapes-clip", posterior="spread")
    with pytest.raises(EncoderError, match=r"no posterior .*encode\.posterior=mean"):
        latent_encoder(config, "cpu")
