"""A model for the service, of which a test says no more than how it draws."""

from __future__ import annotations

from flows.serve.app import ServedModel
from flows.serve.card import Card
from pipeline.serving.batch_queue import DrawFn
from pipeline.serving.work import ModelWork
from tests.support.untrained import ORIGIN
from tld_model.config import DenoiserConfig, SamplingSettings

LONGEST_PROMPT = 8  # words


def served_model(draw: DrawFn, card: Card, own: SamplingSettings) -> ServedModel:
    """Its tokens are words."""
    work = ModelWork(DenoiserConfig(), card.edge, own)
    return ServedModel(
        draw, work, card, ORIGIN, own, lambda prompt: len(prompt.split()), LONGEST_PROMPT
    )
