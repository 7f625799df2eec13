"""A perceptual distance of images: how far apart the features of a classifier are at each depth.

b images   h, w pixels   c feature channels
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.scoring.feature_networks import LITE_MEAN, LITE_STD, efficientnet_network

_BLOCKS = (0, 2, 4, 10, 15)  # of EfficientNet-Lite0: the last at 1/2, 1/4, 1/8, 1/16 and 1/32

_SMALLEST = 64  # pixels: smaller images are enlarged, or nothing is left at 1/32


def perceptual_distance(device: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The distance of images [b, 3, h, w] in [-1, 1], differentiable: the squared difference of
    unit feature vectors, summed over channels, averaged over places and summed over depths (Zhang
    et al., 2018, eq. 1, with equal weights), by EfficientNet-Lite0.

    Raises:
        EncoderError: the network's package is missing.
    """
    network: Any = efficientnet_network(device).requires_grad_(False)
    mean, std = (torch.tensor(x, device=device).view(3, 1, 1) for x in (LITE_MEAN, LITE_STD))
    activations = list[Tensor]()
    for block in _BLOCKS:
        network._blocks[block].register_forward_hook(
            lambda _module, _inputs, output: activations.append(output)
        )

    def distance(decoded: Tensor, pixels: Tensor) -> Tensor:
        both = (torch.cat([decoded, pixels]) + 1) * 127.5
        if (enlarge := _SMALLEST / min(both.shape[2:])) > 1:
            both = F.interpolate(both, scale_factor=enlarge, mode="bilinear")
        activations.clear()
        with torch.autocast(both.device.type, torch.bfloat16):
            network.extract_features((both - mean) / std)
        units = [F.normalize(x.float(), dim=1).chunk(2) for x in activations]  # 2 of [b, c, h, w]
        return torch.stack([(a - b).square().sum(1).mean() for a, b in units]).sum()

    return distance
