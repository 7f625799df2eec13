"""Preflight checks of train.mix: whether its phases exist, and whether their pairs fit into one
batch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from pipeline.config.mix import mixed_phases
from pipeline.config.run import RunConfig

# The VAE, the text encoder and the model's input are the same in all phases (phase_checks.py).
_EQUAL = ("latent_dtype", "latent_clip", "posterior", "text_tokens")
_EQUAL_WITH_TOKENS = ("token_dtype",)
_LONGEST_SHOWN = 40


def mix_problems(config: RunConfig) -> Iterator[str]:
    """Compare the phases of a mix with this phase and with each other."""
    if not config.train.mix:
        return
    if config.before is None:
        if config.phase is None:
            yield (
                "train.mix: mixes the encodings of phases, but this run has none; write "
                "phases.NAME.train.mix, or remove it"
            )
        else:
            yield (
                "train.mix: there is no phase before this one to mix with; write "
                "phases.NAME.train.mix for a later one"
            )
        return
    known = [str(one.phase) for one in config.chain]
    if unknown := [name[:_LONGEST_SHOWN] for name in config.train.mix if name not in known]:
        yield (
            f"train.mix: {', '.join(unknown)}: is neither this phase nor an earlier one; those are "
            f"{', '.join(known)}"
        )
    mixed = mixed_phases(config)
    for (name, one), (other_name, other) in combinations(mixed.items(), 2):
        if (one.download, one.encode) == (other.download, other.encode):
            yield (
                f"train.mix: {name} and {other_name} have the same encodings; name one of them, "
                "with the sum of their weights"
            )
    for name, one in mixed.items():
        yield from (f"train.mix: {problem}" for problem in _differences(config, name, one))


def _differences(config: RunConfig, name: str, one: RunConfig) -> Iterator[str]:
    """What keeps the pairs of a phase out of the batches of this one."""
    ours, theirs = config.encode, one.encode
    settings = _EQUAL if config.model.text == "pooled" else (*_EQUAL, *_EQUAL_WITH_TOKENS)
    compared = [(f"encode.{key}", getattr(ours, key), getattr(theirs, key)) for key in settings]
    sizes = ("model.latent_size", config.model.latent_size, one.model.latent_size)
    for setting, have, has in (sizes, *compared):
        if have != has:
            yield f"{setting} is {have}, but {has} in {name}; pairs of one batch need the same"
    fraction, held_out = config.train.held_out_fraction, one.train.held_out_fraction
    if fraction < held_out:
        yield (
            f"train.held_out_fraction is {fraction:g}, but {held_out:g} in {name}, of which pairs "
            f"that are held out would be trained on; set it to {held_out:g} or more"
        )
