"""Encoders by name and revision, fetched from a hub on loopback by the real client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load, save

from data_catalog.redaction import public_name
from pipeline.config.load import load_config
from pipeline.stages.run_inputs import RunInputs
from tests.support.command import REPOSITORY
from tests.support.hub import Repository, hub_server
from tests.support.small import TINY
from tld_model.encoders.config_files import encoder_problem
from tld_model.encoders.names import SHIPPED_ENCODERS, encoder_identity, split_revision

COMMIT = "5a4043bf824b9853986235c85950a2b8d293be9b"
# Prints a weight of the VAE and of CLIP for each pair of names, or the error.
FETCH = """
import json, sys
from tld_model.encoders.clip import load_clip
from tld_model.encoders.pretrained import EncoderError
from tld_model.encoders.text_encoder import load_text_encoder
from tld_model.encoders.vae import load_image_codec

for vae, clip in json.loads(sys.argv[1]):
    try:
        codec, text = load_image_codec(vae, "cpu"), load_text_encoder(clip, "cpu")
        load_clip(clip, "cpu")
        bias = codec.vae.state_dict()["encoder.conv_in.bias"][0].item()
        print(json.dumps([round(bias, 3), text.model.device.type]))
    except EncoderError as error:
        print(json.dumps(str(error)))
"""


def test_a_name_may_have_a_revision() -> None:
    assert split_revision("me/vae") == ("me/vae", None)
    assert split_revision(f"me/vae@{COMMIT}") == ("me/vae", COMMIT)
    assert encoder_problem(f"me/vae@{COMMIT}") is None
    assert encoder_identity(f"me/vae@{COMMIT}") == f"me/vae@{COMMIT}"
    assert public_name(f"me/vae@{COMMIT}") == f"me/vae@{COMMIT}"
    for name in ("me/vae@", "me/vae@a b", "me/vae@1@2"):
        assert "is no revision: write me/vae@" in (encoder_problem(name) or ""), name
    assert "neither a folder" in (encoder_problem("me/vae@refs/pr/1") or "")


def test_a_revision_makes_encodings_stale() -> None:
    names = ("me/vae", "me/vae@v1", "me/vae@v2")
    inputs = [RunInputs(load_config(TINY, [f"encode.vae={name}"])) for name in names]
    stated = [each.settings("encode") for each in inputs]
    assert [settings["vae"] for settings in stated] == [*names]
    assert [settings["vae_identity"] for settings in stated] == [*names]


@pytest.mark.slow
def test_the_revision_is_what_is_fetched(tmp_path: Path) -> None:
    vae = {path.name: path.read_bytes() for path in SHIPPED_ENCODERS["shapes-vae"].iterdir()}
    clip = {path.name: path.read_bytes() for path in SHIPPED_ENCODERS["shapes-clip"].iterdir()}
    name = next(file for file in vae if file.endswith(".safetensors"))
    with hub_server() as hub:
        commits = []
        hub.repositories["me/vae"] = Repository("model", private=False)
        for bias in (1.0, 2.0):
            weights = load(vae[name])
            weights["encoder.conv_in.bias"][:] = bias
            content = save(weights, metadata={"format": "pt"})
            commits.append(hub.repositories["me/vae"].commit({**vae, name: content}))
        hub.repositories["me/clip"] = Repository("model", private=False)
        first = hub.repositories["me/clip"].commit(clip)
        hub.repositories["me/clip"].commit({"tokenizer.json": b"damaged", "config.json": b"{}"})
        asked = [
            (f"me/vae@{commits[0]}", f"me/clip@{first}"),
            ("me/vae", f"me/clip@{first}"),
            ("me/vae@none", "me/clip"),
        ]
        done = subprocess.run(
            [sys.executable, "-c", FETCH, json.dumps(asked)],
            cwd=REPOSITORY,
            env={
                **{key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"},
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path),
                "HF_HUB_DISABLE_XET": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    old, new, missing = map(json.loads, done.stdout.splitlines())
    assert (old, new) == ([1.0, "cpu"], [2.0, "cpu"])
    assert "cannot fetch VAE 'me/vae@none' from the Hugging Face hub" in missing
