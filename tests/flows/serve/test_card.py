"""The card of a served model: what it shows of the training data, and what if they are away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli.serve import _model_to_serve, serve
from flows.serve.card import Card, ModelToServe, _examples, model_card
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from tests.flows.cli.test_sample import save_model
from tests.support.small import TINY
from tests.support.untrained import untrained_generator
from tests.support.workspace import make_workspace, output, overrides

CardOf = Callable[..., Card]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return make_workspace(tmp_path / "data")


def test_damaged_encodings_give_no_examples_and_end_nothing(config: RunConfig) -> None:
    encodings = output(config, "encode")
    assert _examples(config, encodings, built_in=False) != []
    for path in encodings.folder.glob("*.parquet"):
        path.write_bytes(b"no table")
    assert _examples(config, encodings, built_in=False) == []


@pytest.fixture
def card_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CardOf:
    """The card that `tld serve` would answer with, of captions of one's own."""
    words = overrides(tmp_path / "data")
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("a-token-that-nobody-guesses")
    generator = untrained_generator()
    cards: list[Card] = []

    def remember(settings: RunConfig, served: ModelToServe, *_: object) -> None:
        download = settings.download.model_copy(update={"urls": "mine.csv"})
        own = settings.model_copy(update={"download": download})
        cards.append(model_card(own, served, generator, settings.evaluate.sampling))

    def card(*, has_tokens: bool, captions: bool | None) -> Card:
        serve(TINY, *words, token_file=tokens if has_tokens else None, captions=captions)
        return cards.pop()

    monkeypatch.setattr("flows.serve.server.serve", remember)
    return card


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize(
    ("has_tokens", "captions", "are_shown"),
    [
        (False, None, True),
        (True, None, False),
        (False, False, False),
        (True, True, True),
    ],
)
def test_captions_are_shown_to_those_who_need_no_token_or_if_one_says_so(
    card_of: CardOf, has_tokens: bool, captions: bool | None, are_shown: bool
) -> None:
    card = card_of(has_tokens=has_tokens, captions=captions)
    assert bool(card.examples) == are_shown
    assert bool(card.example) == are_shown, "the first example is a caption too"


def test_another_model_needs_no_training_data(tmp_path: Path) -> None:
    model = save_model(tmp_path / "denoiser.safetensors", 1)
    words = [f"root={tmp_path}", f"download.urls={tmp_path / 'gone.csv'}"]
    served = _model_to_serve(TINY, words, load_config(TINY, words), str(model))
    assert served.source.denoiser == model
    assert served.encodings is None
