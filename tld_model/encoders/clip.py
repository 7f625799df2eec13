"""CLIP encoders: captions or pixels => embeddings. No other file imports transformers.

b batch   h, w pixels   d embedding width   l tokens of a caption   t width of a token
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)
from transformers.utils import logging as transformers_logging

from tld_model.config import TextForm
from tld_model.encoders.pretrained import EncoderError, load_files, load_model, weights_dtype

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

# Pixel statistics of CLIP's training set, which all published CLIP models share.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# eos_token_id of the first CLIP configs. With it, transformers takes the highest id as the end of
# a caption.
_HIGHEST_TOKEN = 2


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Captions -> pooled and projected CLIP text embeddings, float32 [b, d], not normalized; or the
    states of their tokens, float32 [b, l, t], zero after the end of a caption."""

    model: Any  # CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    form: TextForm = "pooled"

    @property
    def dim(self) -> int:
        """The width of its embeddings or token states."""
        config = self.model.config
        return int(config.projection_dim if self.form == "pooled" else config.hidden_size)

    @property
    def longest(self) -> int:
        """The number of tokens in the longest caption. Longer captions are truncated."""
        return int(self.model.config.max_position_embeddings)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Tensor:
        tokens = _tokenize(self.tokenizer, captions, self.longest)
        tokens = tokens.to(self.model.device)
        output = self.model(**tokens)
        if self.form == "pooled":
            return output.text_embeds.float()  # type: ignore[no-any-return]
        return _without_padding(output.last_hidden_state, tokens["attention_mask"])


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Captions in pooled form and optionally as token states, on the device."""

    pooled: Tensor  # float32 [b, d]
    # States of tokens after the last layer norm, including BOS and EOS: float16 [b, l, t].
    states: Tensor | None = None
    lengths: Tensor | None = None  # number of tokens of each caption, int64 [b]; zeros follow them

    def unpadded(self) -> list[Tensor]:
        """The states of each caption [l, t] without padding, on the CPU. Empty if there are no
        states."""
        if self.states is None or self.lengths is None:
            return []
        return [
            states[:length]
            for states, length in zip(self.states.cpu(), self.lengths.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Clip:
    """Both towers of CLIP: the text embeddings of TextEncoder, and image embeddings to compare them
    with."""

    model: Any  # CLIPModel
    tokenizer: CLIPTokenizer

    @property
    def dim(self) -> int:
        return int(self.model.config.projection_dim)

    @property
    def token_dim(self) -> int:
        """The width of token states."""
        return int(self.model.config.text_config.hidden_size)

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and their mask [b, l], padded to the longest of these captions."""
        return dict(
            _tokenize(
                self.tokenizer, captions, self.model.config.text_config.max_position_embeddings
            )
        )

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Captions -> pooled embeddings, float32 [b, d]."""
        return self.encode_tokens(self.tokenize(captions))

    def encode_tokens(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Captions from `tokenize` -> pooled embeddings, float32 [b, d]."""
        return self._encode(tokens)[0]

    @torch.inference_mode()
    def encode_both(self, tokens: Mapping[str, Tensor]) -> EncodedText:
        """Captions from `tokenize` -> pooled embeddings and token states."""
        pooled, states = self._encode(tokens)
        mask = tokens["attention_mask"].to(states.device, non_blocking=True)
        return EncodedText(pooled, _without_padding(states, mask).half(), mask.sum(dim=1))

    @torch.inference_mode()
    def _encode(self, tokens: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Pooled embeddings, float32 [b, d], and the states of tokens and padding [b, l, t]."""
        inputs = {
            name: tensor.to(self.model.device, non_blocking=True) for name, tensor in tokens.items()
        }
        output = self.model.text_model(**inputs)
        return self.model.text_projection(output.pooler_output).float(), output.last_hidden_state

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """uint8 [b, 3, h, w] -> float32 [b, d]. The short side is resized to CLIP's input size, and
        the center is cropped."""
        edge = int(self.model.config.vision_config.image_size)
        x = pixels.to(self.model.device).float() / 255
        if min(x.shape[2:]) != edge:
            ratio = edge / min(x.shape[2:])
            size = [max(edge, round(side * ratio)) for side in x.shape[2:]]
            x = F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((side - edge) // 2 for side in x.shape[2:])
        x = x[:, :, top : top + edge, left : left + edge]  # [b, 3, edge, edge]
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        pooled = self.model.vision_model(
            pixel_values=((x - mean) / std).to(self.model.dtype)
        ).pooler_output
        embeddings: Tensor = self.model.visual_projection(pooled)
        return embeddings.float()


def load_text_encoder(
    name_or_path: str, device: str, form: TextForm = "pooled", *, safetensors_only: bool = False
) -> TextEncoder:
    """Load the text tower of a CLIP model and its tokenizer. Raises EncoderError if they cannot be
    loaded, or with `safetensors_only` if the weights are in another format."""

    def load(source: str | Path, **options: Any) -> Any:
        kinds, config = safetensors_only or None, _text_config(source, **options)
        return CLIPTextModelWithProjection.from_pretrained(
            source, config=config, use_safetensors=kinds, output_loading_info=True, **options
        )

    model = load_model("CLIP text encoder", name_or_path, load)
    return TextEncoder(_ready(model, device), _load_tokenizer(name_or_path, model.config), form)


def load_clip(name_or_path: str, device: str) -> Clip:
    """Load both towers of a CLIP model and its tokenizer. Raises EncoderError if they cannot be
    loaded."""
    model = load_model(
        "CLIP", name_or_path, partial(CLIPModel.from_pretrained, output_loading_info=True)
    )
    return Clip(_ready(model, device), _load_tokenizer(name_or_path, model.config.text_config))


def _text_config(source: str | Path, **options: Any) -> CLIPTextConfig:
    """The config of a text encoder. If the source is a whole CLIP, the projection width is taken
    from its main config, because some models state it only there."""
    raw, _ = CLIPConfig.get_config_dict(source, **options)
    if raw.get("model_type") != CLIPConfig.model_type:
        return CLIPTextConfig.from_pretrained(source, **options)
    whole = CLIPConfig.from_pretrained(source, **options)
    text = whole.text_config
    assert isinstance(text, CLIPTextConfig)
    text.projection_dim = whole.projection_dim
    return text


def _load_tokenizer(name_or_path: str, config: CLIPTextConfig) -> CLIPTokenizer:
    """Load the tokenizer of a text encoder. Raises EncoderError if it belongs to another model."""
    tokenizer: CLIPTokenizer = load_files(
        "CLIP tokenizer", name_or_path, CLIPTokenizer.from_pretrained
    )
    if len(tokenizer) > config.vocab_size:
        raise EncoderError(
            f"the tokenizer of CLIP {name_or_path!r} has {len(tokenizer)} tokens, but "
            f"its text encoder has {config.vocab_size}: they belong to different models"
        )
    vocabulary = tokenizer.get_vocab()
    # transformers invents a tokenizer of special tokens if the files are missing.
    if vocabulary.keys() <= set(tokenizer.all_special_tokens):
        raise EncoderError(
            f"CLIP {name_or_path!r} has no tokenizer: its files, tokenizer.json or vocab.json, are "
            "missing"
        )
    end = max(vocabulary.values()) if config.eos_token_id == _HIGHEST_TOKEN else config.eos_token_id
    if tokenizer.eos_token_id != end:
        raise EncoderError(
            f"the tokenizer of CLIP {name_or_path!r} ends a caption with token "
            f"{tokenizer.eos_token_id}, but its text encoder looks for {end} and would give all "
            "captions the same embedding"
        )
    return tokenizer


def _ready(model: Any, device: str) -> Any:
    return model.to(device=device, dtype=weights_dtype(device)).eval()


def _tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str], limit: int) -> Any:
    return tokenizer(
        list(captions), padding=True, truncation=True, max_length=limit, return_tensors="pt"
    )


def _without_padding(states: Tensor, mask: Tensor) -> Tensor:
    """Hidden states, float32 [b, l, t], set to zero where the mask [b, l] is zero."""
    return states.float() * mask[:, :, None]
