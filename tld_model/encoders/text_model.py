"""Any text model of transformers and its tokenizer, loaded by the class that its config names: the
encoder of a T5, or AutoModel, which covers encoders like BERT and decoder-only language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    MT5EncoderModel,
    PretrainedConfig,
    T5EncoderModel,
    UMT5EncoderModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from tld_model.encoders.pretrained import EncoderError, load_files, load_model

_T5_CLASSES = {"t5": T5EncoderModel, "mt5": MT5EncoderModel, "umt5": UMT5EncoderModel}


def model_type(name_or_path: str) -> Any:
    """The model_type in a model's config; None if it states none, as in some of CLIP."""

    def load(source: str | Path, **options: Any) -> Any:
        config, _ = PretrainedConfig.get_config_dict(source, **options)
        return config.get("model_type")

    return load_files("text encoder", name_or_path, load)


def load_text_model(name_or_path: str, device: str, *, safetensors_only: bool) -> Any:
    """Load a text encoder that is no CLIP. Raises EncoderError if it cannot be loaded or encodes no
    text."""

    def load(source: str | Path, **options: Any) -> Any:
        config = AutoConfig.from_pretrained(source, **options)
        model, info = _class_of(name_or_path, config).from_pretrained(
            source,
            config=config,
            use_safetensors=safetensors_only or None,
            output_loading_info=True,
            **options,
        )
        # BERT's pooler is not used, and many published models lack its weights.
        missing = [name for name in info["missing_keys"] if not name.startswith("pooler.")]
        model.config.use_cache = False
        return model, {**info, "missing_keys": missing}

    model = load_model("text encoder", name_or_path, load)
    return model.to(device=device, dtype=_dtype(device)).eval()


def _class_of(name_or_path: str, config: Any) -> Any:
    """The class of transformers that loads a model. Raises EncoderError if it encodes no text."""
    kind = config.model_type
    if kind in _T5_CLASSES:
        return _T5_CLASSES[kind]
    if not getattr(config, "vocab_size", None) or hasattr(config, "vision_config"):
        raise EncoderError(
            f"{name_or_path!r} is a model of type {kind}, which is no text encoder: give a CLIP, "
            "a T5, an encoder such as BERT or a decoder-only language model"
        )
    if config.is_encoder_decoder:
        raise EncoderError(
            f"text encoder {name_or_path!r} is an encoder with a decoder, of type {kind}; of these "
            f"only {', '.join(_T5_CLASSES)} are supported"
        )
    return AutoModel


def is_causal(config: Any) -> bool:
    """Whether each token sees only those before it, as in decoder-only language models."""
    kind = config.model_type
    return (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )


def _dtype(device: str) -> torch.dtype:
    """The dtype in which a model other than CLIP runs. T5 overflows float16, and language models
    were trained in bfloat16."""
    return torch.bfloat16 if device.startswith("cuda") else torch.float32


def load_tokenizer(name_or_path: str, model: Any) -> Any:
    """Load the tokenizer of a model. Raises EncoderError if it belongs to another model."""
    tokenizer = load_files("tokenizer of text encoder", name_or_path, AutoTokenizer.from_pretrained)
    rows = model.get_input_embeddings().num_embeddings
    vocabulary = tokenizer.get_vocab()
    if max(vocabulary.values(), default=0) >= rows:
        raise EncoderError(
            f"the tokenizer of text encoder {name_or_path!r} has {len(vocabulary)} tokens, but the "
            f"model has {rows}: they belong to different models"
        )
    # transformers invents a tokenizer of special tokens if the files are missing.
    if vocabulary.keys() <= set(tokenizer.all_special_tokens):
        raise EncoderError(
            f"text encoder {name_or_path!r} has no tokenizer: its files, such as tokenizer.json, "
            "are missing"
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer
