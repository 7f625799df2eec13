"""The choice of image features: their order, names, digests and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.scoring.image_features import clip_features, load_features
from tests.support.feature_networks import save_dinov2
from tld_model.encoders.clip import load_clip
from tld_model.encoders.names import encoder_identity
from tld_model.encoders.pretrained import EncoderError


def test_features_keep_their_order_and_are_the_same_in_any_batches(tmp_path: Path) -> None:
    folder, clip = save_dinov2(tmp_path), load_clip("shapes-clip", "cpu")
    names = [f"dinov2:{folder}", "clip"]
    features = load_features(names, clip_features(clip, "digest of CLIP"), "cpu")
    assert [one.name for one in features] == ["dinov2", "clip"]
    assert [one.digest for one in features] == [encoder_identity(folder), "digest of CLIP"]

    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    for one in features:
        whole = one.embed(images, 8)
        assert whole.dtype == torch.float32
        torch.testing.assert_close(one.embed(images, 2), whole)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    torch.testing.assert_close(features[1].embed(images, 8), clip.encode_images(pixels))


def test_a_run_without_clip_has_the_other_features(tmp_path: Path) -> None:
    features = load_features(["clip", f"dinov2:{save_dinov2(tmp_path)}"], None, "cpu")
    assert [one.name for one in features] == ["dinov2"]
    assert load_features(["clip"], None, "cpu") == ()


def test_the_setting_of_features_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"^evaluate\.features: .*DINOv2"):
        load_features([f"dinov2:{tmp_path}"], None, "cpu")
