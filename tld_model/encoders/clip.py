"""CLIP: captions or pixels => embeddings. The only file that names transformers.

b batch   h, w pixels   d embedding width   l tokens of a caption   t their width
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

# Pixel statistics of CLIP's training set, the same in all published CLIP models.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_HIGHEST_TOKEN = (
    2  # eos_token_id of the first CLIP configs; transformers then takes the highest id for the end
)


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Captions -> pooled, projected CLIP text embeddings, float32 [b, d], as they come: not
    normalized; or the states of their tokens, float32 [b, l, t], zero behind the end of a
    caption."""

    model: Any  # CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    form: TextForm = "pooled"

    @property
    def dim(self) -> int:
        """Width of what it makes."""
        config = self.model.config
        return int(config.projection_dim if self.form == "pooled" else config.hidden_size)

    @property
    def longest(self) -> int:
        """Tokens of the longest caption; what is longer is cut."""
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
    """Captions in one form or in both, on the device."""

    pooled: Tensor  # float32 [b, d]
    states: Tensor | None = (
        None  # of tokens behind the last layer norm, BOS and EOS among them: float16 [b, l, t]
    )
    lengths: Tensor | None = None  # tokens of each, int64 [b]; zeros follow them

    def unpadded(self) -> list[Tensor]:
        """The states of each caption alone [l, t], on the CPU; none where there are none."""
        if self.states is None or self.lengths is None:
            return []
        return [
            states[:length]
            for states, length in zip(self.states.cpu(), self.lengths.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Clip:
    """Both towers of CLIP: text embeddings as TextEncoder makes them, and image embeddings to
    compare."""

    model: Any  # CLIPModel
    tokenizer: CLIPTokenizer

    @property
    def dim(self) -> int:
        return int(self.model.config.projection_dim)

    @property
    def token_dim(self) -> int:
        """Width of the states of tokens."""
        return int(self.model.config.text_config.hidden_size)

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and their mask [b, t], padded to the longest of these captions."""
        return dict(
            _tokenize(
                self.tokenizer, captions, self.model.config.text_config.max_position_embeddings
            )
        )

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """float32 [b, d]"""
        return self.encode_tokens(self.tokenize(captions))

    def encode_tokens(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Captions from `tokenize` -> float32 [b, d]"""
        return self._encode(tokens)[0]

    @torch.inference_mode()
    def encode_both(self, tokens: Mapping[str, Tensor]) -> EncodedText:
        """Captions from `tokenize`, pooled and by token."""
        pooled, states = self._encode(tokens)
        mask = tokens["attention_mask"].to(states.device, non_blocking=True)
        return EncodedText(pooled, _without_padding(states, mask).half(), mask.sum(dim=1))

    @torch.inference_mode()
    def _encode(self, tokens: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Pooled float32 [b, d], and the states of tokens and padding [b, l, t]."""
        inputs = {
            name: tensor.to(self.model.device, non_blocking=True) for name, tensor in tokens.items()
        }
        output = self.model.text_model(**inputs)
        return self.model.text_projection(output.pooler_output).float(), output.last_hidden_state

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """uint8 [b, 3, h, w] -> float32 [b, d]; the short side is resized, the center cropped."""
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
    """The text tower of a CLIP model and its tokenizer. Raises EncoderError, also where
    `safetensors_only` and its weights are in another format."""

    def load(source: str | Path, **options: Any) -> Any:
        kinds, config = safetensors_only or None, _text_config(source, **options)
        return CLIPTextModelWithProjection.from_pretrained(
            source, config=config, use_safetensors=kinds, output_loading_info=True, **options
        )

    model = load_model("CLIP text encoder", name_or_path, load)
    return TextEncoder(_ready(model, device), _load_tokenizer(name_or_path, model.config), form)


def load_clip(name_or_path: str, device: str) -> Clip:
    """A whole CLIP model and its tokenizer. Raises EncoderError."""
    model = load_model(
        "CLIP", name_or_path, partial(CLIPModel.from_pretrained, output_loading_info=True)
    )
    return Clip(_ready(model, device), _load_tokenizer(name_or_path, model.config.text_config))


def _text_config(source: str | Path, **options: Any) -> CLIPTextConfig:
    """The config of a text encoder. Of a whole CLIP it has the width of its projection, which some
    give only there."""
    raw, _ = CLIPConfig.get_config_dict(source, **options)
    if raw.get("model_type") != CLIPConfig.model_type:
        return CLIPTextConfig.from_pretrained(source, **options)
    whole = CLIPConfig.from_pretrained(source, **options)
    text = whole.text_config
    assert isinstance(text, CLIPTextConfig)
    text.projection_dim = whole.projection_dim
    return text


def _load_tokenizer(name_or_path: str, config: CLIPTextConfig) -> CLIPTokenizer:
    """The tokenizer that belongs to a text encoder. Raises EncoderError where it is another's."""
    tokenizer: CLIPTokenizer = load_files(
        "CLIP tokenizer", name_or_path, CLIPTokenizer.from_pretrained
    )
    if len(tokenizer) > config.vocab_size:
        raise EncoderError(
            f"the tokenizer of CLIP {name_or_path!r} has {len(tokenizer)} tokens, "
            f"its text encoder {config.vocab_size}: they are of different models"
        )
    vocabulary = tokenizer.get_vocab()
    if vocabulary.keys() <= set(tokenizer.all_special_tokens):  # as transformers makes one up
        raise EncoderError(
            f"CLIP {name_or_path!r} has no tokenizer: its files, tokenizer.json or vocab.json, are "
            "missing"
        )
    end = max(vocabulary.values()) if config.eos_token_id == _HIGHEST_TOKEN else config.eos_token_id
    if tokenizer.eos_token_id != end:
        raise EncoderError(
            f"the tokenizer of CLIP {name_or_path!r} ends a caption with token "
            f"{tokenizer.eos_token_id}, "
            f"its text encoder looks for {end} and would make the same embedding of all captions"
        )
    return tokenizer


def _ready(model: Any, device: str) -> Any:
    return model.to(device=device, dtype=weights_dtype(device)).eval()


def _tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str], limit: int) -> Any:
    return tokenizer(
        list(captions), padding=True, truncation=True, max_length=limit, return_tensors="pt"
    )


def _without_padding(states: Tensor, mask: Tensor) -> Tensor:
    """Hidden states [b, l, t], zero where the mask [b, l] is: float32"""
    return states.float() * mask[:, :, None]
