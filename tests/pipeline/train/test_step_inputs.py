"""Inputs of training steps: prepared in advance they are the same, and nothing in a step waits."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.compute.ranks import ALONE, Ranks
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch, open_dataset
from pipeline.dataset.mixture import TrainingPairs
from pipeline.dataset.split import split_pairs
from pipeline.train.loop import initial_state, train_step
from pipeline.train.loss import step_randomness
from pipeline.train.step_inputs import StepInputs, ahead, step_inputs
from tests.support.dataless import DEVICE, watched_copies
from tests.support.training import MODEL, SETTINGS, write_encodings
from tld_model.config import DenoiserConfig
from tld_model.quantize import Quantization, dequantize


def inputs_of(tmp_path: Path, first: int = 0, ranks: Ranks = ALONE) -> list[StepInputs]:
    config = TrainConfig(**SETTINGS | {"steps": 6})
    encodings = write_encodings(tmp_path / str(len(list(tmp_path.iterdir()))))
    pairs = TrainingPairs.alone(open_dataset(encodings), split_pairs(encodings, 0.2).train)
    return list(ahead(step_inputs(pairs, MODEL, config, first, ranks), 2))


def tensors(inputs: StepInputs) -> list[Tensor]:
    batch, choices = inputs
    return [batch.latents, batch.text.states, choices.sigma, choices.noise, choices.dropped]


def test_a_training_that_resumes_gets_the_inputs_of_one_that_never_stopped(tmp_path: Path) -> None:
    whole, resumed = inputs_of(tmp_path), inputs_of(tmp_path, first=4)
    assert (len(whole), len(resumed)) == (6, 2)
    for one, other in zip(whole[4:], resumed, strict=True):
        assert all(map(torch.equal, tensors(one), tensors(other)))
    assert not torch.equal(whole[0].choices.noise, whole[1].choices.noise)


def test_ranks_get_the_rows_of_one_batch(tmp_path: Path) -> None:
    whole = inputs_of(tmp_path)
    ranks = [inputs_of(tmp_path, ranks=Ranks(rank, 2)) for rank in range(2)]
    for step, together in enumerate(whole):
        rows = [tensors(inputs[step]) for inputs in ranks]
        joined = [torch.cat(parts) for parts in zip(*rows, strict=True)]
        assert all(map(torch.equal, joined, tensors(together)))


def test_items_are_made_in_order_by_one_thread_and_not_too_far_ahead() -> None:
    made, threads = list[int](), set[int]()
    taken = 0

    def items() -> Any:
        for item in range(20):
            assert item <= taken + 3, "two in advance, and the one that is asked for"
            threads.add(threading.get_ident())
            made.append(item)
            yield item

    for expected, item in enumerate(ahead(items(), 2)):
        assert item == expected
        taken += 1
    assert made == list(range(20))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_error_in_advance_is_raised_where_its_step_would_be() -> None:
    def items() -> Any:
        yield 1
        raise OSError("the disk is gone")

    prepared = ahead(items(), 2)
    assert next(prepared) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(prepared)


def test_a_consumer_that_stops_ends_the_thread() -> None:
    items = ahead(iter(range(100)), 2)
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]  # it is a generator
    assert not [one for one in threading.enumerate() if one.name.startswith("ahead")]


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "adamw": ({}, {}),
    "muon": ({}, {"optimizer": "muon", "ema_decay": [0.9, 0.99]}),
    "accumulate": ({}, {"accumulate": 2, "loss_weight": "snr", "max_loss_weight": 5}),
    "contrastive": ({"predicts": "v", "norm": "post"}, {"contrastive": 0.05}),
    "inpainting": ({"inpainting": True}, {"noise_levels": "logit_normal"}),
    "tokens": ({"text": "tokens", "qk_norm": True, "positions": "learned"}, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_host_never_waits_for_a_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed_model, changed = KINDS[kind]
    model = DenoiserConfig(**MODEL.model_dump() | changed_model)
    config = TrainConfig(**SETTINGS | changed)
    text = torch.randn(8, 5, 8) if model.text == "tokens" else torch.randn(8, 8)
    with watched_copies(monkeypatch) as copies:
        state = initial_state(config, model, DEVICE)
        copies.places.clear()
        for step in range(3):
            choices = step_randomness(config, model, 8, step).on(DEVICE)
            batch = Batch(
                *(x.to(DEVICE, non_blocking=True) for x in (torch.randn(8, 4, 4, 4), text))
            )
            result = train_step(state, batch, choices, config)
    assert copies.places == []
    assert result.loss.device.type == DEVICE
    assert state.step == 3


@pytest.mark.parametrize("clip", [3.0, (1.0, 2.0, 3.0, 4.0)])
def test_dequantization_waits_for_nothing(
    clip: float | tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = torch.zeros(2, 4, 8, 8, dtype=torch.uint8).to(DEVICE)
    with watched_copies(monkeypatch) as copies:
        dequantize(stored, Quantization(clip, "uint8"))
    assert copies.places == []


def test_a_wait_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with watched_copies(monkeypatch) as copies:
        there = torch.zeros(3).to(DEVICE)
        assert len(copies.places) == 1
        torch.tensor([1.0], device=DEVICE)
        assert len(copies.places) == 2
        with pytest.raises(RuntimeError):
            there.sum().item()
        with pytest.raises(NotImplementedError):
            there.cpu()
        with pytest.raises((RuntimeError, NotImplementedError)):
            there[there > 0]
