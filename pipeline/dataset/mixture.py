"""The pairs that a training draws from: the encodings of one phase, or a mix of several.

Of a mix each batch has its share of every set, to within a pair, at places that follow from (seed,
step). Each set has an order of its own, in which every pair comes equally often. How many of its
pairs come before a step follows from the shares alone, so a training that resumes goes on to the
same pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.dataset.batch_order import Numbers, PairOrder
from pipeline.dataset.caption_sampling import (
    CaptionColumnError,
    caption_sampler,
    weights_among,
    wrong_weights,
)
from pipeline.dataset.encoded_dataset import Batch, EncodedDataset, StoredBatch
from tld_model.quantize_tokens import StoredStates

_PLACES = 0x6D6978  # keeps the places of sets in a batch independent of the order of pairs


class MixtureError(ValueError):
    """Encodings whose pairs do not fit into one batch."""

    exit_code = 2


class BatchChoice(NamedTuple):
    """The pairs of a batch, in their order."""

    numbers: Numbers
    epochs: Numbers  # of each pair, counted in its set


@dataclass(frozen=True, slots=True)
class PairSet:
    """The pairs of one phase."""

    pairs: EncodedDataset
    train: Numbers  # the numbers of its training pairs
    share: Fraction = Fraction(1)  # of the pairs of a training, relative to those of other sets
    phase: str = ""  # its name in a mix


@dataclass(frozen=True, slots=True)
class TrainingPairs:
    """The pairs of one set or of a mix. Their numbers run through all sets."""

    sets: tuple[PairSet, ...]

    @classmethod
    def alone(cls, pairs: EncodedDataset, train: Numbers) -> TrainingPairs:
        """The pairs of one set."""
        return cls((PairSet(pairs, train),))

    @classmethod
    def mixed(cls, sets: Sequence[PairSet]) -> TrainingPairs:
        """The pairs of several sets, with token-level text of one length. Raises MixtureError if
        they do not fit into one batch."""
        first = sets[0]
        for one in sets[1:]:
            if (ours := _layout(one.pairs)) != (theirs := _layout(first.pairs)):
                raise MixtureError(
                    f"train.mix: the encodings of {one.phase} do not fit those of {first.phase}: "
                    f"{ours} and {theirs}"
                )
        longest = max(one.pairs.longest_caption for one in sets)
        padded = [replace(one.pairs, longest_caption=longest) for one in sets]
        return cls(tuple(replace(one, pairs=p) for one, p in zip(sets, padded, strict=True)))

    @property
    def has_spread(self) -> bool:
        """Whether standard deviations of the VAE's posterior are stored."""
        return self.sets[0].pairs.has_spread

    def sampled(self, caption_weights: Mapping[str, float], seed: int) -> TrainingPairs:
        """The same pairs, of which batches show a caption and a side that are chosen anew in each
        epoch. Raises CaptionColumnError if the weights are invalid."""
        columns = [one.pairs.caption_columns for one in self.sets]
        if problem := wrong_weights(columns, caption_weights):
            raise CaptionColumnError(f"train.caption_weights: {problem}")
        samplers = [
            caption_sampler(names, weights_among(names, caption_weights), seed) for names in columns
        ]
        return TrainingPairs(
            tuple(
                replace(one, pairs=replace(one.pairs, sampler=sampler, seed=seed))
                for one, sampler in zip(self.sets, samplers, strict=True)
            )
        )

    def drawn(self, pairs: int) -> list[int]:
        """How many of the first pairs of a training come from each set. With each pair one of these
        numbers grows by 1, and each is within a pair of its share of what earlier sets leave."""
        counts, weight = list[int](), sum((one.share for one in self.sets), Fraction())
        for one in self.sets:
            part = one.share / weight
            counts.append(pairs * part.numerator // part.denominator)
            pairs -= counts[-1]
            weight -= one.share
        return counts

    def batches(self, batch_size: int, seed: int, first_step: int) -> Iterator[BatchChoice]:
        """Endless batches, starting at a step."""
        starts, before = self._starts, self.drawn(first_step * batch_size)
        orders = [
            PairOrder(one.train, seed, position, stream)
            for stream, (one, position) in enumerate(zip(self.sets, before, strict=True))
        ]
        step = first_step
        while True:
            after = self.drawn((step + 1) * batch_size)
            parts = [
                order.take(last - first)
                for order, first, last in zip(orders, before, after, strict=True)
            ]
            numbers = [part[0] + start for part, start in zip(parts, starts, strict=True)]
            places = self._places(batch_size, seed, step)
            yield BatchChoice(
                np.concatenate(numbers)[places], np.concatenate([part[1] for part in parts])[places]
            )
            step, before = step + 1, after

    def stored_batch(self, numbers: Numbers, epochs: Numbers | None = None) -> StoredBatch:
        """The pairs with these numbers, in this order, as EncodedDataset.stored_batch has them."""
        places, parts = list[Numbers](), list[StoredBatch]()
        for one, here, own in self._by_set(numbers):
            places.append(here)
            parts.append(one.pairs.stored_batch(own, None if epochs is None else epochs[here]))
        return parts[0] if len(parts) == 1 else _joined(parts, np.concatenate(places))

    def batch(self, numbers: Numbers) -> Batch:
        """The pairs with these numbers, in this order, with their main captions."""
        return self.stored_batch(numbers).on("cpu")

    def keys(self, numbers: Numbers) -> list[str]:
        """The keys of the pairs with these numbers, of a mix behind the name of their phase."""
        names = [""] * len(numbers)
        for one, here, own in self._by_set(numbers):
            for place, key in zip(here, one.pairs.keys(own), strict=True):
                names[place] = f"{one.phase}/{key}" if one.phase else key
        return names

    @property
    def _starts(self) -> Numbers:
        """The number of the first pair of each set."""
        return np.cumsum([0, *(one.pairs.rows for one in self.sets[:-1])], dtype=np.int64)

    def _by_set(self, numbers: Numbers) -> Iterator[tuple[PairSet, Numbers, Numbers]]:
        """The sets of some pairs, each with the places of its pairs and their numbers in it."""
        starts = self._starts
        set_of = np.searchsorted(starts, numbers, side="right") - 1
        for index in np.unique(set_of):
            here = np.flatnonzero(set_of == index)
            yield self.sets[index], here, numbers[here] - starts[index]

    def _places(self, batch_size: int, seed: int, step: int) -> Numbers:
        """The order of the pairs of a batch, which come set after set."""
        if len(self.sets) == 1:
            return np.arange(batch_size)
        return np.random.default_rng((seed, step, _PLACES)).permutation(batch_size)


def _joined(parts: Sequence[StoredBatch], places: Numbers) -> StoredBatch:
    """One batch of several, each row at its place."""
    order = torch.from_numpy(np.argsort(places))

    def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
        present = [tensor for tensor in tensors if tensor is not None]
        return torch.cat(present)[order] if present else None

    states = torch.cat([part.text.states for part in parts])[order]
    return replace(
        parts[0],
        latents=torch.cat([part.latents for part in parts])[order],
        text=StoredStates(states, joined([part.text.scale for part in parts])),
        spread=joined([part.spread for part in parts]),
    )


def _layout(pairs: EncodedDataset) -> dict[str, object]:
    """The properties that all sets of a mix must share."""
    first = pairs.shards[0]
    layout: dict[str, object] = {
        "latents": (*first.latents.shape[1:], str(first.latents.dtype)),
        "quantization": pairs.quantization,
        "spread": pairs.has_spread,
        "text": first.text.shape[1],
    }
    if pairs.form == "tokens" and first.tokens is not None:
        layout["tokens"] = (first.tokens.shape[1], str(first.tokens.dtype))
    return layout
