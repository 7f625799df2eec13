"""Retrieval: whether the real image that is nearest to a sample shows the concept of its caption.

A caption asks for a concept in a style. Its sample is compared with the real images of that style,
one for each concept; the true one is among them. The ceiling asks the same of a real image of the
concept in another style in place of the sample.

q samples whose captions have a concept and a style   n real images of a style   p pairs
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from data_catalog.encodings import read_rows
from data_catalog.storage.manifest import Manifest
from pipeline.held_out.real_images import FeaturesOf, Numbers
from pipeline.scoring.bootstrap import Estimate, caption_groups
from pipeline.scoring.image_scores import estimate_score
from pipeline.scoring.metrics import mean_statistic
from pipeline.scoring.neighbours import nearest, ranks

WITHIN = (1, 5)  # the ranks up to which a concept counts as found
MOST_CONCEPTS = 5_000  # of a style that are compared: each image is decoded and embedded
_NONE = -1


@dataclass(frozen=True, slots=True)
class Labels:
    """What each pair shows, as codes; -1 if its column has no text."""

    concepts: Numbers  # [p]
    styles: Numbers  # [p]


@dataclass(frozen=True, slots=True)
class StyleSearch:
    """The samples of one style, and the real images among which they are searched."""

    positions: Numbers  # [q], of the samples
    candidates: Numbers  # [n], pairs: the first of each concept compared
    true: Numbers  # [q], candidates with the concept of each sample
    others: Numbers  # [q], pairs with the concept in another style; -1 if there is none


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The outcome of all searches, in the order of the samples."""

    positions: Numbers  # [q], of the samples
    ranks: Numbers  # [q], of the true image; 0 is the nearest
    nearest: Numbers  # [q], pairs
    true: Numbers  # [q], pairs
    candidates: Numbers  # [q], n of the style
    ceiling_ranks: Numbers  # [q], of a real image of another style; -1 if there is none

    def chance(self, within: int) -> float:
        """The share that a random order would find."""
        return float(np.mean(np.minimum(within, self.candidates) / self.candidates))

    def estimates(self, captions: Sequence[str]) -> dict[str, Estimate]:
        """The scores, and the ceiling as scores of the reference. `captions` are those of all
        samples."""
        parts = {"": self.ranks, "reference/": self.ceiling_ranks}
        scores = dict[str, Estimate]()
        for prefix, rank in parts.items():
            if not (searched := rank != _NONE).any():
                continue
            groups = caption_groups([captions[i] for i in self.positions[searched]])
            for within in WITHIN:
                hits = mean_statistic((rank[searched] < within).astype(np.float64))
                name = f"{prefix}retrieval_at_{within}"
                scores[name] = estimate_score(name, hits, groups)
        return scores


def read_labels(encodings: Manifest, concept_column: str, style_column: str) -> Labels:
    """The labels of all pairs, from columns that download.keep_columns carried here. Raises
    EncodingsError if they lack one."""
    names = [shard.name for shard in encodings.shards if shard.rows]
    tables = [read_rows(encodings.folder, name, [concept_column, style_column]) for name in names]
    table = pa.concat_tables(tables)
    return Labels(_codes(table[concept_column]), _codes(table[style_column]))


def plan_searches(labels: Labels, held_out: Numbers, seed: int) -> Iterator[StyleSearch]:
    """The searches of samples of these held-out pairs, style by style. The image of another style
    is drawn for each pair, by the seed and its number. Of a style with more than MOST_CONCEPTS, as
    many are compared: those of the pairs, and others drawn by the seed."""
    complete = np.flatnonzero((labels.concepts != _NONE) & (labels.styles != _NONE))
    both = np.stack([labels.styles[complete], labels.concepts[complete]])
    kinds, first = np.unique(both, axis=1, return_index=True)
    firsts = complete[first]  # the first pair of each style and concept
    styles = np.where(np.isin(held_out, complete), labels.styles[held_out], _NONE)
    for style in np.unique(styles[styles != _NONE]):
        positions = np.flatnonzero(styles == style)
        concepts = labels.concepts[held_out[positions]]
        here = kinds[0] == style
        others = [
            _draw(firsts[~here & (kinds[1] == concept)], seed, number)
            for concept, number in zip(concepts, held_out[positions].tolist(), strict=True)
        ]
        true = np.searchsorted(kinds[1][here], concepts)
        compared = _compared(int(here.sum()), true, seed)
        candidates, true = firsts[here][compared], np.searchsorted(compared, true)
        yield StyleSearch(positions, candidates, true, np.array(others, np.int64))


def retrieve(
    features_of: FeaturesOf, searches: Sequence[StyleSearch], samples: Tensor
) -> Retrieval | None:
    """Search the samples, whose features are [.., d], among the real images of their style; None if
    no caption has a concept and a style."""
    if not searches:
        return None
    parts = [part for s in searches for part in (s.candidates, s.others[s.others != _NONE])]
    numbers = np.unique(np.concatenate(parts))
    features = features_of(numbers)
    results = list[Numbers]()
    for search in searches:
        queries, true = samples[search.positions], search.true
        candidates = features[np.searchsorted(numbers, search.candidates)]
        ceiling = np.full(len(true), _NONE)
        if (drawn := search.others != _NONE).any():
            real = features[np.searchsorted(numbers, search.others[drawn])]
            ceiling[drawn] = ranks(real, candidates, true[drawn])
        columns = (
            search.positions,
            ranks(queries, candidates, true),
            search.candidates[nearest(queries, candidates).index],
            search.candidates[true],
            np.full(len(true), len(candidates)),
            ceiling,
        )
        results.append(np.stack(columns))
    joined = np.concatenate(results, axis=1)
    return Retrieval(*joined[:, joined[0].argsort()])


def _codes(column: pa.ChunkedArray) -> Numbers:
    texts = pc.if_else(pc.equal(column, ""), None, column)
    encoded = texts.combine_chunks().dictionary_encode()
    codes: Numbers = encoded.indices.fill_null(_NONE).to_numpy().astype(np.int64)
    return codes


def _compared(concepts: int, asked: Numbers, seed: int) -> Numbers:
    """Which of so many concepts are compared, in ascending order; those asked for always are."""
    if concepts <= MOST_CONCEPTS:
        return np.arange(concepts)
    asked = np.unique(asked)
    rest = np.setdiff1d(np.arange(concepts), asked)
    drawn = np.random.default_rng(seed).permutation(rest)[: max(MOST_CONCEPTS - len(asked), 0)]
    return np.sort(np.concatenate([asked, drawn]))


def _draw(options: Numbers, seed: int, number: int) -> int:
    return int(np.random.default_rng((seed, number)).choice(options)) if len(options) else _NONE
