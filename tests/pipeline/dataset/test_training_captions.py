"""Examples of prompts are captions that training saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_catalog.storage.manifest import Manifest
from pipeline.dataset.split import split_pairs
from pipeline.dataset.training_captions import training_captions
from tests.support.training import write_encodings


@pytest.fixture(scope="module")
def encodings(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_encodings(tmp_path_factory.mktemp("examples") / "encodings", (0, 40, 17))


def test_they_are_captions_of_training_and_always_the_same(encodings: Manifest) -> None:
    captions = training_captions(encodings, 0.2, 30)
    held_out = set(split_pairs(encodings, 0.2).held_out_captions)
    assert held_out
    assert not held_out & set(captions)
    assert len(set(captions)) == len(captions) >= 25
    assert captions == training_captions(encodings, 0.2, 30)
    assert captions != sorted(captions), "they are not the first of the table"
    assert len(training_captions(encodings, 0.2, 3)) == 3


def test_only_those_that_are_examples_are_taken(encodings: Manifest) -> None:
    captions = training_captions(encodings, 0.0, 64, lambda caption: caption.endswith("7"))
    assert captions
    assert all(caption.endswith("7") for caption in captions)
    assert training_captions(encodings, 0.2, 64, lambda _: False) == []


def test_blank_and_very_long_captions_are_no_examples(tmp_path: Path) -> None:
    captions = ["", " ", "x" * 201, " a star ", "a star", "a ring"]
    manifest = write_encodings(tmp_path / "encodings", (6,), captions=captions)
    assert set(training_captions(manifest, 0.0, 9)) <= {"a star", "a ring"}
