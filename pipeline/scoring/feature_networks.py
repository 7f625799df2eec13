"""Feature networks that are not a run's own: EfficientNet-Lite0, FID's Inception v3 and DINOv2.

Each is a function of pixels with the preprocessing that its weights were trained with, in float32.

b batch   h, w pixels   d feature width
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel

from data_catalog.feature_names import EFFICIENTNET, INCEPTION, FeatureChoice
from pipeline.config.feature_weights import DOWNLOAD_INCEPTION, weights_file, weights_problem
from tld_model.encoders.pretrained import EncoderError, load_model

PixelEncoder = Callable[[Tensor], Tensor]
"""uint8 [b, 3, h, w] -> float32 [b, d], on the network's device"""

_EDGE = 224
# glibc takes blocks of over 32 MB from the kernel anew each time, which took longer than the layers
# that fill them. An image's largest activation is 4.8 MB.
_IMAGES_ON_CPU = 4
# Pixel statistics of ImageNet, on a scale of 0 to 255.
_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# EfficientNet-Lite's: lite/efficientnet_lite_builder.py of its authors.
LITE_MEAN, LITE_STD = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
_DINOV2_TYPES = ("dinov2", "dinov2_with_registers")


def load_efficientnet(_: str | None, device: str) -> PixelEncoder:
    """EfficientNet-Lite0's mean of the last convolution's output over the image, d = 1280. The
    short side is resized to 224 and the center is cropped.

    Raises:
        EncoderError: a package or the weights are missing or damaged.
    """
    # On a CPU its depthwise convolutions take less time with the channels last.
    network: Any = efficientnet_network(device)
    network.to(memory_format=torch.channels_last)

    def features_of(pixels: Tensor) -> Tensor:
        x = _square(pixels.to(device), LITE_MEAN, LITE_STD)
        x = x.contiguous(memory_format=torch.channels_last)
        features: Tensor = network.extract_features(x).mean((2, 3))
        return features

    @torch.inference_mode()
    def encode(pixels: Tensor) -> Tensor:
        parts = pixels.split(len(pixels) if device.startswith("cuda") else _IMAGES_ON_CPU)
        return torch.cat([features_of(part) for part in parts])

    return encode


def efficientnet_network(device: str) -> nn.Module:
    """EfficientNet-Lite0 (Tan and Le, 2019, in its authors' variant without squeeze-and-excitation)
    with the ImageNet weights of its package.

    Raises:
        EncoderError: a package or the weights are missing or damaged.
    """
    path = _weights(FeatureChoice(EFFICIENTNET))
    assert path, "the package has the file"
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name(EFFICIENTNET)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file can cause any error in torch
        raise _unreadable(EFFICIENTNET, path, error) from error
    return network.to(device).eval()


def load_inception(weights: str | None, device: str) -> PixelEncoder:
    """FID's Inception v3 as torch-fidelity ports it from TensorFlow, bit by bit, resizing included:
    the output of its last pooling, d = 2048. Without a path torch-fidelity fetches the weights.

    Raises:
        EncoderError: torch-fidelity or the weights are missing or damaged.
    """
    path = _weights(FeatureChoice(INCEPTION, weights))
    try:
        if path is not None:  # torch-fidelity would run the code that a file may hold
            torch.load(path, map_location="meta", weights_only=True)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        network = FeatureExtractorInceptionV3(
            INCEPTION, ["2048"], feature_extractor_weights_path=path and str(path)
        )
    except Exception as error:  # a damaged file, torchvision or the network can cause any error
        raise _unreadable(INCEPTION, path, error) from error
    network.to(device).eval()

    @torch.inference_mode()
    def encode(pixels: Tensor) -> Tensor:
        features: Tensor = network(pixels.to(device))[0]
        return features

    return encode


def load_dinov2(weights: str | None, device: str) -> PixelEncoder:
    """DINOv2 (Oquab et al., 2023) from a folder or the Hugging Face hub: the normalized state of
    the class token. The short side is resized to 224 and the center is cropped, as in Stein et al.
    (2023), who recommend these features for Fréchet distances.

    Raises:
        EncoderError: the model cannot be loaded or is no DINOv2.
    """
    assert weights, "parse_features requires them"
    load = partial(AutoModel.from_pretrained, output_loading_info=True)
    network: Any = load_model("DINOv2", weights, load)
    if (kind := network.config.model_type) not in _DINOV2_TYPES:
        raise EncoderError(f"the model in {weights!r} is a {kind}, no DINOv2")
    network.to(device=device, dtype=torch.float32).eval()

    @torch.inference_mode()
    def encode(pixels: Tensor) -> Tensor:
        x = _square(pixels.to(device), _IMAGENET_MEAN, _IMAGENET_STD)
        features: Tensor = network(pixel_values=x).pooler_output
        return features

    return encode


def _square(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [b, 3, h, w] -> the central square of 224 pixels, normalized, float32 [b, 3, 224, 224].
    Bicubic, without aliasing when it becomes smaller."""
    edge = min(pixels.shape[2:])
    top, left = ((side - edge) // 2 for side in pixels.shape[2:])
    x = pixels[:, :, top : top + edge, left : left + edge].float()
    if edge != _EDGE:
        x = F.interpolate(x, size=(_EDGE, _EDGE), mode="bicubic", antialias=True).clamp(0, 255)
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)


def _weights(choice: FeatureChoice) -> Path | None:
    if problem := weights_problem(choice):
        raise EncoderError(problem)
    return weights_file(choice)


def _unreadable(name: str, path: Path | None, error: Exception) -> EncoderError:
    source = f"from {str(path)!r}" if path else "that its library fetches"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    advice = "" if path else f"; {DOWNLOAD_INCEPTION}"
    return EncoderError(f"cannot load the weights of {name} {source}: {lines[0]}{advice}")
