"""Text encoders: captions => pooled embeddings or token states, by any model of transformers.

One vector is made of a caption as the model's authors say: by CLIP's projection, or as modules.json
of a sentence encoder says. Without a word of theirs it is the mean over the tokens (Reimers and
Gurevych, 2019) or, for a decoder-only model, the state of the end token, which is appended (Wang et
al., Improving Text Embeddings with Large Language Models, 2024): only the last token sees all
others.

b batch   d embedding width   l tokens of a caption   t width of a token
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tld_model.config import TextForm, TextSettings
from tld_model.encoders.clip import load_text_tower
from tld_model.encoders.pretrained import EncoderError, load_files
from tld_model.encoders.sentence_modules import SentenceModules, read_sentence_modules
from tld_model.encoders.text_config import CLIP_TYPES
from tld_model.encoders.text_model import (
    is_causal,
    load_text_model,
    load_tokenizer,
    model_type,
)
from tld_model.encoders.text_states import Pooling, TextRecipe, encode_captions, tokenize_captions

# Without encode.text_tokens no caption is longer: the cost of padding it in every batch is linear.
LONGEST_CAPTION = 256
_DEFAULT = TextSettings()


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Captions -> pooled embeddings, float32 [b, d]; or the states of their tokens, float32
    [b, l, t], zero after the end of a caption."""

    model: Any
    tokenizer: Any
    recipe: TextRecipe
    pooled_dim: int
    token_dim: int
    form: TextForm = "pooled"

    @property
    def dim(self) -> int:
        """The width of its embeddings or token states."""
        return self.pooled_dim if self.form == "pooled" else self.token_dim

    @property
    def longest(self) -> int:
        """The number of tokens in the longest caption. Longer captions are truncated."""
        return self.recipe.limit

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and their mask [b, l], padded to the longest of these captions."""
        return tokenize_captions(self.tokenizer, captions, self.recipe)

    def count_tokens(self, caption: str) -> int:
        """The number of tokens of a caption, those beyond the longest included."""
        text = self.recipe.template.replace("{}", caption)
        row = self.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return len(row) + (self.recipe.end is not None and row[-1:] != [self.recipe.end])

    @torch.inference_mode()
    def encode_both(self, tokens: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Captions from `tokenize` -> pooled embeddings [b, d] and token states [b, l, t]."""
        return encode_captions(self.model, tokens, self.recipe)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Tensor:
        pooled, states = encode_captions(self.model, self.tokenize(captions), self.recipe)
        return pooled if self.form == "pooled" else states


def load_text_encoder(
    name_or_path: str,
    device: str,
    form: TextForm = "pooled",
    settings: TextSettings = _DEFAULT,
    *,
    safetensors_only: bool = False,
) -> TextEncoder:
    """Load a text encoder and its tokenizer. Raises EncoderError if they cannot be loaded, do not
    fit each other or the settings, or with `safetensors_only` if the weights are in another
    format."""
    sentences, end = None, None
    if model_type(name_or_path) in CLIP_TYPES:
        model, tokenizer = load_text_tower(name_or_path, device, safetensors_only=safetensors_only)
        pooling: Pooling = "projection"
    else:
        sentences = read_sentence_modules(name_or_path)
        model = load_text_model(name_or_path, device, safetensors_only=safetensors_only)
        tokenizer = load_tokenizer(name_or_path, model)
        causal = is_causal(model.config)
        pooling = sentences.pooling if sentences else "last" if causal else "mean"
        end = tokenizer.eos_token_id if causal and not sentences else None
    config = model.config.get_text_config()
    recipe = TextRecipe(
        limit=_limit(name_or_path, tokenizer, config, sentences, settings.tokens),
        pooling=pooling,
        normalize=bool(sentences and sentences.normalize),
        layer=_layer(name_or_path, config, settings.layer),
        template=settings.template,
        end=end,
    )
    return _tried(name_or_path, TextEncoder(model, tokenizer, recipe, 0, 0, form))


def _tried(name_or_path: str, encoder: TextEncoder) -> TextEncoder:
    """The encoder with the widths of its outputs, after it encoded a caption. This also lets the
    tokenizer take on its options before threads share it."""

    def encode(*_: object, **__: object) -> tuple[Tensor, Tensor]:
        return encoder.encode_both(encoder.tokenize(["a red star", ""]))

    pooled, states = load_files("text encoder", name_or_path, encode)
    return TextEncoder(
        encoder.model,
        encoder.tokenizer,
        encoder.recipe,
        pooled.shape[1],
        states.shape[2],
        encoder.form,
    )


def _limit(
    name_or_path: str,
    tokenizer: Any,
    config: Any,
    sentences: SentenceModules | None,
    requested: int | None,
) -> int:
    """The longest caption in tokens. Raises EncoderError if the model takes fewer than
    requested."""
    positions = getattr(config, "max_position_embeddings", None) or 0
    is_clip = config.model_type in CLIP_TYPES
    limits = [positions] if is_clip else [positions, tokenizer.model_max_length]
    most = min((limit for limit in limits if limit > 0), default=LONGEST_CAPTION)
    if requested is None:
        longest = (sentences and sentences.longest) or most
        return most if is_clip else min(most, longest, LONGEST_CAPTION)
    if requested > most:
        raise EncoderError(
            f"text encoder {name_or_path!r} takes at most {most} tokens, not {requested}"
        )
    return requested


def _layer(name_or_path: str, config: Any, requested: int | None) -> int | None:
    """The number of a layer from 1; negative numbers count from the last, which is -1."""
    if requested is None:
        return None
    count = int(config.num_hidden_layers)
    layer = requested if requested > 0 else count + 1 + requested
    if not 1 <= layer <= count:
        raise EncoderError(
            f"text encoder {name_or_path!r} has {count} layers, so there is no layer {requested}"
        )
    return layer
