"""CLIP: captions or pixels => embeddings.

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
class Clip:
    """Both towers of CLIP: the embeddings of its text tower, and image embeddings to compare them
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
    def encode_both(self, tokens: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Captions from `tokenize` -> pooled embeddings, float32 [b, d], and token states behind
        the last layer norm, float32 [b, l, t], zero after the end of a caption."""
        pooled, states = self._encode(tokens)
        mask = tokens["attention_mask"].to(states.device, non_blocking=True)
        return pooled, states.float() * mask[:, :, None]

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


def load_text_tower(
    name_or_path: str, device: str, *, safetensors_only: bool = False
) -> tuple[Any, CLIPTokenizer]:
    """Load the text tower of a CLIP model, a CLIPTextModelWithProjection, and its tokenizer. Raises
    EncoderError if they cannot be loaded, or with `safetensors_only` if the weights are in another
    format."""

    def load(source: str | Path, **options: Any) -> Any:
        kinds, config = safetensors_only or None, _text_config(source, **options)
        return CLIPTextModelWithProjection.from_pretrained(
            source, config=config, use_safetensors=kinds, output_loading_info=True, **options
        )

    model = load_model("CLIP text encoder", name_or_path, load)
    return _ready(model, device), _load_tokenizer(name_or_path, model.config)


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
