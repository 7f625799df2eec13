"""The text side of the encode stage: captions -> what is stored of them, and CLIP's embeddings for
the CLIP score.

b captions   d embedding width   l tokens of a caption   t width of a token
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_catalog.text_figures import TextFigures, TokenDtype
from pipeline.config.encode import EncodeConfig
from tld_model.encoders.clip import Clip
from tld_model.encoders.names import encoder_identity
from tld_model.encoders.text_encoder import TextEncoder, load_text_encoder
from tld_model.encoders.text_states import TextRecipe
from tld_model.quantize_tokens import StoredStates, dequantize_tokens, quantize_tokens


@dataclass(frozen=True, slots=True)
class CaptionTokens:
    """Captions as inputs of the text encoder, and of CLIP if that is another model."""

    text: Mapping[str, Tensor]
    clip: Mapping[str, Tensor] | None = None

    def pinned(self) -> CaptionTokens:
        """A copy in memory from which a GPU copies while the host goes on."""
        return CaptionTokens(_pinned(self.text), _pinned(self.clip) if self.clip else None)


@dataclass(frozen=True, slots=True)
class TokenMeasures:
    """Sums over the tokens of some captions, float64, on the device."""

    count: Tensor  # tokens, []
    total: Tensor  # of their states [t]
    squares: Tensor  # of their states [t]
    squared_error: Tensor  # of what is stored [t]


@dataclass(frozen=True, slots=True)
class EncodedCaptions:
    """Captions in pooled form and optionally as token states, on the device."""

    pooled: Tensor  # float32 [b, d]
    clip: Tensor | None  # CLIP's embeddings, float32 [b, …]; None without CLIP
    stored: StoredStates | None = None  # [b, l, t]
    lengths: Tensor | None = None  # number of tokens of each caption, int64 [b]
    measures: TokenMeasures | None = None

    def unpadded(self) -> list[StoredStates]:
        """The states of each caption [l, t] without padding, on the CPU. Empty if there are no
        states."""
        if self.stored is None or self.lengths is None:
            return []
        states, scale = self.stored.states.cpu(), self.stored.scale
        scale = None if scale is None else scale.cpu()
        return [
            StoredStates(states[i, :length], None if scale is None else scale[i, :length])
            for i, length in enumerate(self.lengths.tolist())
        ]


@dataclass(frozen=True, slots=True)
class CaptionEncoder:
    """CLIP's text tower, or a text encoder of its own."""

    clip: Clip | None
    own: TextEncoder | None  # None if CLIP's text tower encodes the captions as it is
    by_token: bool
    token_dtype: TokenDtype
    text: TextFigures | None = None
    """What determines the embeddings; None for CLIP's text tower as it is."""

    @property
    def _encoder(self) -> Clip | TextEncoder:
        encoder = self.own or self.clip
        assert encoder, "the settings require one of them"
        return encoder

    @property
    def text_dim(self) -> int:
        """The width of pooled embeddings."""
        encoder = self._encoder
        return encoder.pooled_dim if isinstance(encoder, TextEncoder) else encoder.dim

    @property
    def token_dim(self) -> int | None:
        """The width of token states; None if they are not stored."""
        return self._encoder.token_dim if self.by_token else None

    def tokenize(self, captions: Sequence[str]) -> CaptionTokens:
        """The captions as inputs of the models."""
        scoring = self.clip.tokenize(captions) if self.own and self.clip else None
        return CaptionTokens(self._encoder.tokenize(captions), scoring)

    def __call__(self, tokens: CaptionTokens) -> EncodedCaptions:
        """Encode captions from `tokenize`."""
        if self.own is None and self.clip and not self.by_token:
            pooled = self.clip.encode_tokens(tokens.text)
            return EncodedCaptions(pooled, pooled)
        pooled, states = self._encoder.encode_both(tokens.text)
        clip = pooled if self.own is None else None
        if self.clip and tokens.clip:
            clip = self.clip.encode_tokens(tokens.clip)
        if not self.by_token:
            return EncodedCaptions(pooled, clip)
        mask = tokens.text["attention_mask"].to(states.device, non_blocking=True)
        is_uint8 = self.token_dtype == "uint8"
        stored = quantize_tokens(states) if is_uint8 else StoredStates(states.half())
        measures = _measure(states, stored, mask)
        return EncodedCaptions(pooled, clip, stored, mask.sum(dim=1), measures)


def caption_encoder(config: EncodeConfig, clip: Clip | None, device: str) -> CaptionEncoder:
    """Load what the settings name, beside CLIP. Raises EncoderError."""
    own = text = None
    if not config.encodes_with_clip:
        own = load_text_encoder(config.text_model, device, config.text, config.text_settings)
        text = _text_figures(config.text_model, own.recipe)
    return CaptionEncoder(clip, own, config.text == "tokens", config.token_dtype, text)


def _text_figures(name: str, recipe: TextRecipe) -> TextFigures:
    return TextFigures(
        name=name,
        identity=encoder_identity(name),
        tokens=recipe.limit,
        template=recipe.template,
        pooling=recipe.pooling,
        normalized=recipe.normalize,
        layer=recipe.layer,
        end=recipe.end,
    )


def _measure(states: Tensor, stored: StoredStates, mask: Tensor) -> TokenMeasures:
    """Sums over the tokens that are stored; those that are not finite do not count."""
    finite = states.isfinite().all(dim=2) & (mask > 0)  # [b, l]
    present = finite[:, :, None]
    exact = torch.where(present, states, 0)  # [b, l, t]
    error = torch.where(present, dequantize_tokens(stored), 0) - exact  # [b, l, t]
    total, squares, squared_error = (
        values.sum(dim=(0, 1), dtype=torch.float64)
        for values in (exact, exact.square(), error.square())
    )  # [t] each
    return TokenMeasures(finite.sum(), total, squares, squared_error)


def _pinned(tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.pin_memory() for name, tensor in tokens.items()}
