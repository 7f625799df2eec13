"""Preflight checks of the gate, evaluate.require: whether the scores that it demands can be
given."""

from __future__ import annotations

from collections.abc import Iterator

from data_catalog.scores import DISTANCES, FEWEST_IMAGES
from data_catalog.storage.manifest import Manifest
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.dataset.split import split_pairs


def gate_problems(config: RunConfig) -> Iterator[str]:
    """Distances that evaluate.require demands of fewer images than a distance needs."""
    required, prompts = _distances(config), config.evaluate.prompts
    setting = config.evaluate.require_setting
    if required and prompts < FEWEST_IMAGES:
        yield (
            f"{setting}: {required} cannot be given, because it needs {FEWEST_IMAGES} images and "
            f"evaluate.prompts is {prompts}; set evaluate.prompts={FEWEST_IMAGES} or more, or "
            f"remove it from {setting}"
        )


def check_gate(config: RunConfig, encodings: Manifest) -> None:
    """Check the gate again before the training, when the number of held-out pairs is known.

    Raises ConfigError if evaluate.require demands a distance and too few pairs are held out for it.
    """
    if not (required := _distances(config)):
        return
    setting = config.evaluate.require_setting
    held_out = len(split_pairs(encodings, config.train.held_out_fraction).held_out)
    if held_out < FEWEST_IMAGES:
        raise ConfigError(
            f"{setting}: {required} cannot be given, because it needs {FEWEST_IMAGES} images and "
            f"only {held_out} pairs are held out of training; raise train.held_out_fraction, mark "
            f"more rows 'held_out' in download.split_column, or remove it from {setting}"
        )


def _distances(config: RunConfig) -> str:
    """The distances that evaluate.require demands, as text."""
    return " and ".join(name for name in config.evaluate.require if name in DISTANCES)
