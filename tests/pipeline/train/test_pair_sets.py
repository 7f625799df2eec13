"""The sets of a training as its job names them: what is held out, and what a manifest says then."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_catalog.storage.manifest import Manifest
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.split import split_pairs
from pipeline.train.job import MixedSet, TrainJob
from pipeline.train.pair_sets import mixed_set_figures, open_training_pairs
from tests.support.training import MODEL, SETTINGS, write_encodings

MIX = {"first": 1.0, "fine": 3.0}


def job_of(own: Manifest, **mix: Manifest) -> TrainJob:
    sets = tuple(MixedSet(phase=name, encodings=one.folder) for name, one in mix.items())
    config = TrainConfig(**SETTINGS, mix=MIX if mix else {})
    return TrainJob(
        encodings=own.folder,
        mix=sets,
        out=own.folder.parent,
        config=config,
        model=MODEL,
        device="cpu",
    )


def test_held_out_pairs_of_every_set_stay_out(tmp_path: Path) -> None:
    first, own = write_encodings(tmp_path / "a", (50,)), write_encodings(tmp_path / "b")
    pairs, split = open_dataset(own), split_pairs(own, SETTINGS["held_out_fraction"])
    mixed = open_training_pairs(job_of(own, first=first, fine=own), pairs, split)
    of_first = split_pairs(first, SETTINGS["held_out_fraction"])
    assert [one.phase for one in mixed.sets] == ["first", "fine"]
    assert np.array_equal(mixed.sets[0].train, of_first.train)
    assert np.array_equal(mixed.sets[1].train, split.train)
    assert len(of_first.held_out)
    drawn = {int(n) for _ in range(3) for n in next(mixed.batches(300, 0, _)).numbers}
    assert drawn == {*of_first.train.tolist(), *(split.train + 50).tolist()}


def test_without_a_mix_the_pairs_are_those_of_the_encodings(tmp_path: Path) -> None:
    own = write_encodings(tmp_path / "own")
    split = split_pairs(own, SETTINGS["held_out_fraction"])
    pairs = open_training_pairs(job_of(own), open_dataset(own), split)
    assert [one.train is split.train for one in pairs.sets] == [True]
    assert mixed_set_figures(pairs, 100) is None


def test_the_figures_count_what_was_drawn(tmp_path: Path) -> None:
    first, own = write_encodings(tmp_path / "a", (50,)), write_encodings(tmp_path / "b")
    split = split_pairs(own, SETTINGS["held_out_fraction"])
    job = job_of(own, first=first, fine=own)
    figures = mixed_set_figures(open_training_pairs(job, open_dataset(own), split), 100)
    assert figures is not None
    assert {name: (one.share, one.drawn_pairs) for name, one in figures.items()} == {
        "first": (0.25, 25),
        "fine": (0.75, 75),
    }
    assert figures["fine"].train_pairs == len(split.train)
