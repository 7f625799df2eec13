"""What the files of a local text encoder say, read without torch: its width, and why it cannot be
used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from tld_model.config import TextForm, TextSettings
from tld_model.encoders.config_files import encoder_config
from tld_model.encoders.names import encoder_folder

CLIP_TYPES = (None, "clip", "clip_text_model")
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt"),
    *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)


class _Shape(BaseModel):
    """The used fields of a model's config, by the names that its authors may have given them."""

    model_type: str | None = None
    vocab_size: int | None = None
    projection_dim: int | None = None
    hidden_size: int | None = None
    d_model: int | None = None  # of T5
    n_embd: int | None = None  # of GPT-2
    dim: int | None = None  # of DistilBERT
    num_hidden_layers: int | None = None
    num_layers: int | None = None
    n_layer: int | None = None
    n_layers: int | None = None
    max_position_embeddings: int | None = None

    @property
    def width(self) -> int | None:
        """The width of a token's state."""
        return self.hidden_size or self.d_model or self.n_embd or self.dim

    @property
    def layers(self) -> int | None:
        """The number of layers."""
        return self.num_hidden_layers or self.num_layers or self.n_layer or self.n_layers


class _Config(_Shape):
    """A config.json, which may hold that of the text encoder among others."""

    text_config: _Shape | None = None

    @property
    def text(self) -> _Shape:
        """The text encoder's own part."""
        return self.text_config or self


def text_width(name: str, form: TextForm) -> int | None:
    """The width of a text encoder's embeddings or token states; None if its config is not on a
    local disk."""
    config = encoder_config(name, _Config)
    if config is None:
        return None
    if config.model_type in CLIP_TYPES and form == "pooled":
        return config.projection_dim or config.text.projection_dim
    return config.text.width


def text_encoder_problem(name: str) -> str | None:
    """Why the model in a local folder is no text encoder, or None if it may be one."""
    folder, config = encoder_folder(name), encoder_config(name, _Config)
    if folder is None or config is None:
        return None
    if config.text.vocab_size is None and config.model_type not in ("clip", "clip_text_model"):
        kind = f"a model of type {config.model_type}" if config.model_type else "some other model"
        return f"{str(folder)!r} holds {kind}, which is no text encoder: it has no vocabulary"
    if not any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()):
        return f"{str(folder)!r} holds no weights (model.safetensors)"
    if not any(Path(folder, file).exists() for file in _TOKENIZER_FILES):
        return f"{str(folder)!r} holds no tokenizer (tokenizer.json)"
    return None


def settings_problems(name: str, settings: TextSettings) -> Iterator[tuple[str, str]]:
    """The names of settings that a local text encoder does not allow, and why."""
    config = encoder_config(name, _Config)
    if config is None:
        return
    layers, most = config.text.layers, config.text.max_position_embeddings
    if layers and settings.layer and abs(settings.layer) > layers:
        yield "text_layer", f"is {settings.layer}, but {name!r} has {layers} layers"
    if most and most > 0 and settings.tokens and settings.tokens > most:
        yield "text_tokens", f"is {settings.tokens}, but {name!r} takes at most {most}"
