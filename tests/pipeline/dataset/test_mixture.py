"""Pairs drawn from a mix: the share of each set, its epochs, and the same pairs after a resume, in
any number of processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.compute.ranks import ALONE, Ranks
from pipeline.config.train import TrainConfig
from pipeline.dataset.batch_order import PairOrder
from pipeline.dataset.caption_sampling import CaptionColumnError
from pipeline.dataset.encoded_dataset import EncodedDataset, open_dataset
from pipeline.dataset.mixture import BatchChoice, MixtureError, PairSet, TrainingPairs
from pipeline.train.step_inputs import StepInputs, step_inputs
from tests.support.training import MODEL, SETTINGS, write_encodings
from tld_model.quantize import Quantization

SIZES = {"first": (23, 17), "second": (11,), "third": (30, 5)}
SHARES = {"first": Fraction(1, 5), "second": Fraction(1, 7), "third": Fraction(23, 35)}
BATCH = 16


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, EncodedDataset]:
    folder = tmp_path_factory.mktemp("sets")
    return {
        name: open_dataset(write_encodings(folder / name, sizes)) for name, sizes in SIZES.items()
    }


@pytest.fixture(scope="module")
def mixed(opened: dict[str, EncodedDataset]) -> TrainingPairs:
    """Of each set all pairs but the first three."""
    return TrainingPairs.mixed(
        [
            PairSet(pairs, np.arange(3, pairs.rows), SHARES[name], name)
            for name, pairs in opened.items()
        ]
    )


def choices(pairs: TrainingPairs, steps: int, first: int = 0, seed: int = 5) -> list[BatchChoice]:
    return list(islice(pairs.batches(BATCH, seed, first), steps - first))


def test_each_set_has_its_share_of_every_batch(mixed: TrainingPairs) -> None:
    drawn = Counter[str]()
    for step, batch in enumerate(choices(mixed, 200), start=1):
        here = Counter(key.partition("/")[0] for key in mixed.keys(batch.numbers))
        drawn += here
        for name, share in SHARES.items():
            assert abs(drawn[name] - share * step * BATCH) < len(SHARES)
            assert abs(here[name] - share * BATCH) < len(SHARES)
    assert [drawn[name] for name in SHARES] == mixed.drawn(200 * BATCH)


def test_each_pair_adds_one_to_one_set(mixed: TrainingPairs) -> None:
    for before, after in pairwise(mixed.drawn(n) for n in range(500)):
        assert sorted(b - a for a, b in zip(before, after, strict=True)) == [0, 0, 1]


def test_the_places_of_a_set_in_a_batch_change(mixed: TrainingPairs) -> None:
    places = {
        tuple(np.flatnonzero(np.char.startswith(mixed.keys(batch.numbers), "second")))
        for batch in choices(mixed, 40)
    }
    assert len(places) > 30


def test_within_a_set_every_pair_comes_equally_often_and_never_a_held_out_one(
    mixed: TrainingPairs,
) -> None:
    batches = choices(mixed, 100)
    keys = mixed.keys(np.concatenate([batch.numbers for batch in batches]))
    epochs = np.concatenate([batch.epochs for batch in batches])
    for one in mixed.sets:
        names = {f"{one.phase}/{key}" for key in one.pairs.keys(one.train)}
        own = [(int(e), key) for e, key in zip(epochs, keys, strict=True) if key in names]
        assert len(own) == sum(key.startswith(f"{one.phase}/") for key in keys)
        counts = Counter(key for _, key in own).values()
        assert max(counts) - min(counts) <= 1
        assert len(own) == len(set(own)), "no pair comes twice in an epoch"


def test_the_pairs_of_a_step_follow_from_seed_and_step(mixed: TrainingPairs) -> None:
    whole = choices(mixed, 40)
    for first in (1, 17, 39):
        for one, other in zip(whole[first:], choices(mixed, 40, first), strict=True):
            assert np.array_equal(one.numbers, other.numbers)
            assert np.array_equal(one.epochs, other.epochs)
    other_seed = choices(mixed, 2, seed=6)[0]
    assert not np.array_equal(whole[0].numbers, other_seed.numbers)


def test_one_set_has_the_order_that_it_has_without_a_mix(opened: dict[str, EncodedDataset]) -> None:
    pairs, train = opened["first"], np.arange(3, 40)
    in_mix = TrainingPairs.mixed([PairSet(pairs, train, Fraction(1), "first")])
    order = PairOrder(train, seed=5, position=0)
    for alone, mixed in zip(
        choices(TrainingPairs.alone(pairs, train), 9), choices(in_mix, 9), strict=True
    ):
        numbers, epochs = order.take(BATCH)
        for batch in (alone, mixed):
            assert np.array_equal(batch.numbers, numbers)
            assert np.array_equal(batch.epochs, epochs)


def test_a_batch_holds_the_pairs_in_their_order(
    mixed: TrainingPairs, opened: dict[str, EncodedDataset]
) -> None:
    (batch,) = choices(mixed, 1)
    content = mixed.batch(batch.numbers)
    names = mixed.keys(batch.numbers)
    assert len({name.partition("/")[0] for name in names}) == 3
    for row, name in enumerate(names):
        phase, _, key = name.partition("/")
        pairs = opened[phase]
        keys = pairs.keys(np.arange(pairs.rows))
        alone = pairs.batch(np.array([keys.index(key)]))
        assert torch.equal(content.latents[row], alone.latents[0])
        assert torch.equal(content.text[row], alone.text[0])


def inputs(pairs: TrainingPairs, ranks: Ranks) -> list[StepInputs]:
    config = TrainConfig(**SETTINGS | {"steps": 6, "batch_size": BATCH})
    return list(step_inputs(pairs, MODEL, config, 0, ranks))


def test_ranks_divide_each_batch(mixed: TrainingPairs) -> None:
    whole, *parts = (inputs(mixed, ranks) for ranks in (ALONE, Ranks(0, 2), Ranks(1, 2)))
    for together, *rows in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([one.batch.latents for one in rows]), together.batch.latents)
        states = [one.batch.text.states for one in rows]
        assert torch.equal(torch.cat(states), together.batch.text.states)


def test_each_set_shows_captions_of_its_own_columns(opened: dict[str, EncodedDataset]) -> None:
    columns = {"first": ("caption", "alt"), "second": ("caption",)}
    sets = [
        PairSet(replace(opened[name], caption_columns=names), np.arange(3), phase=name)
        for name, names in columns.items()
    ]
    pairs = TrainingPairs.mixed(sets).sampled({"alt": 3}, seed=2)
    first, second = (one.pairs.sampler for one in pairs.sets)
    assert first is not None
    assert list(first.weights) == [1, 3]
    assert second is None
    assert {one.pairs.seed for one in pairs.sets} == {2}
    with pytest.raises(CaptionColumnError, match=r"column: long; .* caption, alt"):
        pairs.sampled({"long": 1}, seed=2)


def test_sets_that_do_not_fit_into_one_batch_are_refused(
    opened: dict[str, EncodedDataset],
) -> None:
    sets = [PairSet(pairs, np.arange(3), phase=name) for name, pairs in opened.items()]
    clipped = replace(sets[1].pairs, quantization=Quantization(9.0, "float16"))
    with pytest.raises(MixtureError, match="the encodings of second do not fit those of first"):
        TrainingPairs.mixed([sets[0], replace(sets[1], pairs=clipped)])


def test_token_level_text_has_the_length_of_the_longest(
    opened: dict[str, EncodedDataset], tmp_path: Path
) -> None:
    other = replace(open_dataset(write_encodings(tmp_path / "more")), longest_caption=7)
    sets = [PairSet(opened["first"], np.arange(3)), PairSet(other, np.arange(3))]
    pairs = TrainingPairs.mixed(sets)
    assert [one.pairs.longest_caption for one in pairs.sets] == [7, 7]
