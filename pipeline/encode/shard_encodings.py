"""The encodings of a batch and of a whole shard in memory, and the arrays that are stored of them.

n pairs of a shard   b pairs of a batch   c channels   z latent size   d embedding width
m captions of a shard   u distinct captions   l tokens of a caption   t their width
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data_catalog.encodings import EncodedArrays
from data_catalog.text_figures import TokenDtype, TokenSums
from pipeline.encode.caption_encoder import EncodedCaptions, TokenMeasures
from pipeline.encode.image_batches import DESCRIPTION
from tld_model.quantize_tokens import StoredStates

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class BatchEncodings:
    """The encodings of a batch, on the device of the encoders."""

    rows: dict[str, list[Any]]  # column -> b values
    captions: list[dict[int, int]]  # as in PackedBatch
    stored: Tensor  # uint8 or float16 [b, c, z, z]
    new_text: EncodedCaptions | None  # of the captions that no earlier batch had
    image_embeddings: Tensor | None  # CLIP's, float32 [b, …]; None without CLIP
    measured: dict[str, Tensor]  # name -> [b, ...]
    more: dict[str, Tensor] = field(default_factory=dict)
    """Further arrays of latents: name in EncodedArrays -> [b, c, z, z]"""


@dataclass(frozen=True, slots=True)
class ShardEncodings:
    """The encodings of a shard, on the CPU."""

    rows: dict[str, list[Any]]  # column -> n values
    captions: list[dict[int, int]]  # as in PackedBatch
    stored: Tensor  # uint8 or float16 [n, c, z, z]
    text: Tensor  # of distinct captions, float32 [u, d]
    states: list[StoredStates]  # of their tokens, [l, t] each; empty for pooled text
    measured: dict[str, Tensor]  # name -> [n, ...]; empty if there are no rows
    token_sums: TokenSums | None = None  # over the distinct captions
    more: dict[str, Tensor] = field(default_factory=dict)
    """Further arrays of latents: name in EncodedArrays -> [n, c, z, z]"""

    @property
    def finite(self) -> Tensor:
        """Whether all stored numbers of a pair are finite: bool [n]."""
        text = self.text.half().isfinite().all(dim=1)  # [u]
        if self.states:
            text &= torch.tensor([_is_finite(stored) for stored in self.states])
        texts = torch.tensor(
            [bool(text[list(numbers.values())].all()) for numbers in self.captions]
        )
        finite = texts & self.measured["squared_error"].isfinite()
        if "clip_score" in self.measured:
            finite &= self.measured["clip_score"].isfinite()
        return finite

    def table(self, keep: Sequence[str], *, more_captions: bool) -> dict[str, list[Any]]:
        """The columns of the table that is stored of a shard, with those to keep."""
        rows, measured = dict(self.rows), self.measured
        filled = len(self.captions) > 0
        scores = measured.get("clip_score")
        rows["clip_score"] = [None] * len(self.captions) if scores is None else scores.tolist()
        rows["clipped_fraction"] = measured["clipped"].tolist() if filled else []
        rows["quantization_rmse"] = measured["squared_error"].sqrt().tolist() if filled else []
        if not more_captions:
            del rows["more_captions"]
        kept_columns = rows.pop("kept_columns")
        return rows | {name: [texts.get(name) for texts in kept_columns] for name in keep}

    def arrays(
        self, token_dim: int | None, token_dtype: TokenDtype, *, more_captions: bool
    ) -> EncodedArrays:
        """The arrays that are stored of a shard; `token_dim` is None if only pooled text is stored.

        A caption that several pairs share is stored for each of them.
        """
        caption_numbers = [number for numbers in self.captions for number in numbers.values()]  # m
        columns = [column for numbers in self.captions for column in numbers]
        counts = [len(numbers) for numbers in self.captions]
        tokens = [self.states[number] for number in caption_numbers if token_dim is not None]
        scales = [stored.scale.numpy() for stored in tokens if stored.scale is not None]
        none = np.zeros((0, token_dim or 0), token_dtype)
        is_scaled = token_dim is not None and token_dtype == "uint8"
        return EncodedArrays(
            latents=self.stored.numpy(),
            text=self.text[caption_numbers].half().numpy(),
            key=np.array(self.rows["key"], dtype=np.bytes_),
            text_start=_starts(counts) if more_captions else None,
            text_column=np.array(columns, np.uint8) if more_captions else None,
            tokens=None
            if token_dim is None
            else np.concatenate([none, *(stored.states.numpy() for stored in tokens)]),
            token_start=None
            if token_dim is None
            else _starts([len(stored.states) for stored in tokens]),
            token_scale=np.concatenate([np.zeros(0, np.float16), *scales]) if is_scaled else None,
            **{name: latents.numpy() for name, latents in self.more.items()},
        )

    def without(self, unwanted: Tensor, reason: str) -> tuple[ShardEncodings, list[Row]]:
        """Split off the rows at which `unwanted`, bool [n], is true, and label them with the
        reason."""
        excluded = [
            {name: self.rows[name][i] for name in ("key", "url", "caption")}
            for i in unwanted.nonzero().flatten()
        ]
        return self._select(~unwanted), [{**row, "reason": reason} for row in excluded]

    def _select(self, mask: Tensor) -> ShardEncodings:
        """The rows at which `mask`, bool [n], is true."""
        numbers = mask.nonzero().flatten()
        return ShardEncodings(
            {name: [values[i] for i in numbers] for name, values in self.rows.items()},
            [self.captions[i] for i in numbers],
            self.stored[numbers],
            self.text,
            self.states,
            {name: values[numbers] for name, values in self.measured.items()},
            self.token_sums,
            {name: latents[numbers] for name, latents in self.more.items()},
        )


def join_batches(batches: list[BatchEncodings], text_dim: int) -> ShardEncodings:
    """Join the batches of a whole shard, on the CPU."""
    rows = {
        name: [value for batch in batches for value in batch.rows[name]]
        for name in (*DESCRIPTION, "height", "width")
    }
    if not batches:
        return ShardEncodings(rows, [], torch.zeros(0, 0, 0, 0), torch.zeros(0, text_dim), [], {})
    captions = [numbers for batch in batches for numbers in batch.captions]
    new_text = [batch.new_text for batch in batches if batch.new_text is not None]
    text = torch.cat([part.pooled for part in new_text]).cpu()  # [u, d]
    states = [stored for part in new_text for stored in part.unpadded()]
    figures = {
        name: torch.cat([batch.measured[name] for batch in batches]).cpu()
        for name in batches[0].measured
    }
    of_images = [batch.image_embeddings for batch in batches if batch.image_embeddings is not None]
    if of_images:
        of_captions = torch.cat([part.clip for part in new_text if part.clip is not None]).cpu()
        figures["clip_score"] = 100 * F.cosine_similarity(
            torch.cat(of_images).cpu(), of_captions[[numbers[0] for numbers in captions]]
        )
    stored = torch.cat([batch.stored for batch in batches]).cpu()
    more = {
        name: torch.cat([batch.more[name] for batch in batches]).cpu() for name in batches[0].more
    }
    measures = [part.measures for part in new_text if part.measures is not None]
    sums = _token_sums(measures)
    return ShardEncodings(rows, captions, stored, text, states, figures, sums, more)


def _token_sums(measures: list[TokenMeasures]) -> TokenSums | None:
    """The sums over the tokens of all batches; None if there are no token states."""
    if not measures:
        return None
    count = int(sum(part.count for part in measures))
    total, squares, error = (
        torch.stack([getattr(part, name) for part in measures]).sum(dim=0).cpu()
        for name in ("total", "squares", "squared_error")
    )  # [t] each
    deviation = (squares - total.square() / max(1, count)).clamp_min(0)
    return TokenSums(
        tokens=count,
        squared_error=float(error.mean()),
        squared_deviation=float(deviation.mean()),
    )


def _is_finite(stored: StoredStates) -> bool:
    numbers = stored.states if stored.scale is None else stored.scale
    return bool(numbers.isfinite().all())


def _starts(counts: list[int]) -> NDArray[np.int64]:
    """The start of each of several runs, and the end of the last: [len + 1]."""
    return np.cumsum([0, *counts], dtype=np.int64)
