"""Real images of an encodings output by the numbers of their pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_catalog.encodings import read_rows
from data_catalog.storage.workspace import Workspace
from pipeline.config.run import RunConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.evaluate.held_out_samples import load_models
from pipeline.held_out.real_images import RealImages
from pipeline.scoring.prompt_accuracy import grade_images
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace, output

NUMBERS = np.array([39, 3, 23, 24])  # of two shards, in any order


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return make_workspace(tmp_path_factory.mktemp("real") / "data")


@pytest.fixture(scope="module")
def real_images(config: RunConfig) -> RealImages:
    encodings = output(config, "encode")
    models = load_models(encodings, output(config, "train"), config.evaluate)
    workspace = Workspace(config.folder)
    return RealImages(models, open_dataset(encodings), encodings, 2, workspace)


def test_captions_and_images_are_those_of_their_pairs(real_images: RealImages) -> None:
    folder = real_images.encodings.folder
    every = [
        c for name in ("00000", "00001") for c in read_rows(folder, name)["caption"].to_pylist()
    ]
    captions = real_images.captions(NUMBERS)
    assert captions == [every[number] for number in NUMBERS]
    verdicts = grade_images(real_images.images(NUMBERS), captions).correct
    assert all(verdict.all() for verdict in verdicts.values())


def test_features_are_computed_once_and_again_if_their_file_is_damaged(
    real_images: RealImages,
) -> None:
    track = RememberingTracker()
    first = real_images.features(NUMBERS, track)
    assert first.shape == (4, 64)
    assert first.equal(real_images.network.embed(real_images.images(NUMBERS), 2))
    assert track.shown == [(n, 4, "real images decoded and embedded") for n in (2, 4)]
    assert real_images.features(NUMBERS, track).equal(first)
    assert len(track.shown) == 2
    (path,) = real_images.workspace.references.iterdir()
    for content in (b"", path.read_bytes()[:-4], b"x" * 300):
        path.write_bytes(content)
        assert real_images.features(NUMBERS, track).equal(first)
    assert len(track.shown) == 8


def test_features_of_other_pairs_or_another_network_are_others(real_images: RealImages) -> None:
    first = real_images.features(NUMBERS, RememberingTracker())
    reversed_ones = real_images.features(NUMBERS[::-1].copy(), RememberingTracker())
    assert reversed_ones.flip(0).allclose(first, atol=1e-5)
    network = replace(real_images.network, digest="another", embed=lambda *_: torch.ones(2, 7))
    other = replace(real_images, models=replace(real_images.models, features=(network,)))
    assert other.features(NUMBERS, RememberingTracker()).equal(torch.ones(4, 7))
