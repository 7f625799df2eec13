"""The identity of a model: its files, whatever they are called here."""

from __future__ import annotations

from pathlib import Path

from data_catalog.storage.digests import file_digest
from pipeline.generate.model_source import ModelSource
from tests.support.untrained import untrained_generator
from tld_model.checkpoint import save_denoiser
from tld_model.encoders.names import encoder_folder, encoder_identity


def test_an_identity_names_no_path(tmp_path: Path) -> None:
    denoiser, folder = untrained_generator().denoiser, encoder_folder("shapes-clip")
    path = tmp_path / "secret" / "denoiser.safetensors"
    path.parent.mkdir()
    save_denoiser(path, denoiser.state_dict(), denoiser.config)
    source = ModelSource(path, "shapes-vae", str(folder), "mine")
    identity = source.identity()
    assert identity.digest == file_digest(path)
    assert identity.clip
    assert (identity.clip.name, identity.clip.identity) == (
        "clip",
        encoder_identity("shapes-clip"),
    )
    assert str(tmp_path) not in identity.model_dump_json()
    assert source.load("cpu").denoiser.config == denoiser.config
