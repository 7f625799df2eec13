"""Weights of strangers: whatever a file claims, it is compared with the file before memory is
taken."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import pytest
import torch

from tld_model.checkpoint import CheckpointError, load_denoiser, read_config, save_denoiser
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser

SMALL = DenoiserConfig(
    latent_size=4, latent_channels=4, text_dim=8, width=64, layers=1, noise_embed_dim=16
)
CONFIG = SMALL.model_dump(mode="json")


def write(path: Path, header: object, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def described(description: object) -> dict[str, object]:
    return {"__metadata__": {"denoiser": json.dumps(description)}}


TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[" * 100_000,
        b"\xff\xfe",
        b"9" * 5000,
        b'{"a": 1, "a": 2}',
        [],
        {"__metadata__": []},
        {"__metadata__": {"denoiser": 7}},
        {"__metadata__": {"denoiser": "{"}},
        {"__metadata__": {"denoiser": "[" * 10_000}},
        described([]),
        described({"config": 7}),
        described({"config": CONFIG, "encoders": []}),
        described({"config": CONFIG, "latent_scaling": "x"}),
        described({"config": CONFIG | {"width": 64 * 10**6, "layers": 10**6}}),
        described({"config": CONFIG | {"latent_size": 2**62}}) | {"a": TENSOR},
        described({"config": CONFIG | {"width": 64 * 10**5}}) | {"a": TENSOR},
        described({"config": CONFIG}) | {"a": TENSOR},
        described({"config": CONFIG}) | {"a": TENSOR | {"shape": [10**12]}},
        described({"config": CONFIG}) | {"a": TENSOR | {"shape": [-1]}},
        described({"config": CONFIG}) | {"a": TENSOR | {"dtype": "X9"}},
        described({"config": CONFIG}) | {"a": TENSOR | {"data_offsets": [0, 10**12]}},
        described({"config": CONFIG}) | {"a": None},
    ],
)
def test_a_header_that_lies_is_an_error_of_the_file(tmp_path: Path, header: object) -> None:
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        load_denoiser(write(tmp_path / "x.safetensors", header, bytes(4)), "cpu")


def test_a_header_longer_than_the_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for raw in (b"", b"\x01", (2**63).to_bytes(8, "little") + b"{}"):
        path.write_bytes(raw)
        with pytest.raises(CheckpointError, match=r"x\.safetensors"):
            read_config(path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = Denoiser(SMALL).state_dict()
    weights["head.bias"][0] = torch.nan
    save_denoiser(tmp_path / "x.safetensors", weights, SMALL)
    with pytest.raises(CheckpointError, match=r"head\.bias holds numbers that are not finite"):
        load_denoiser(tmp_path / "x.safetensors", "cpu")


def test_no_mutation_of_a_header_brings_out_another_error(tmp_path: Path) -> None:
    path, rng = tmp_path / "x.safetensors", random.Random(0)
    save_denoiser(path, Denoiser(SMALL).state_dict(), SMALL)
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(300):
        mutant = bytearray(whole)
        for _ in range(rng.choice((1, 4))):
            mutant[rng.randrange(end)] = rng.choice(b'0919{}[]",:-') if rng.random() < 0.7 else 255
        path.write_bytes(mutant)
        with contextlib.suppress(CheckpointError):
            load_denoiser(path, "cpu")
