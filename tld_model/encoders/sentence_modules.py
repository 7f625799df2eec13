"""What a sentence encoder's folder says of its pooled embeddings: modules.json and its pooling, in
the format of the library sentence-transformers (Reimers and Gurevych, 2019)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from tld_model.encoders.names import POOLING_FILE
from tld_model.encoders.pretrained import EncoderError, load_files
from tld_model.encoders.text_states import Pooling

_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_lasttoken": "last",
    # the same in a newer format, as the value of pooling_mode
    "mean": "mean",
    "cls": "first",
    "lasttoken": "last",
}
_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class SentenceModules:
    """How a sentence encoder makes one vector of a caption."""

    pooling: Pooling
    normalize: bool
    longest: int | None  # caption in tokens


def read_sentence_modules(name_or_path: str) -> SentenceModules | None:
    """What the files say, or None if the model is no sentence encoder. Raises EncoderError if they
    are damaged or ask for something else than these modules."""
    modules = _read(name_or_path, "modules.json")
    if modules is None:
        return None
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        pooling = _read(name_or_path, POOLING_FILE) or {}
        chosen = {name for name, value in pooling.items() if value is True}
        chosen |= {str(pooling["pooling_mode"])} if "pooling_mode" in pooling else set()
        chosen -= {"include_prompt"}
        longest = (_read(name_or_path, "sentence_bert_config.json") or {}).get("max_seq_length")
    except (AttributeError, KeyError, TypeError) as error:
        raise EncoderError(
            f"text encoder {name_or_path!r}: modules.json or what it names is damaged"
        ) from error
    strange = [kind for kind in kinds if kind not in _MODULES] or sorted(chosen - _POOLINGS.keys())
    if strange or len(chosen) != 1:
        raise EncoderError(
            f"text encoder {name_or_path!r} makes sentence embeddings by "
            f"{', '.join(strange) or f'{len(chosen)} kinds of pooling'} (modules.json); supported "
            f"are {', '.join(_MODULES)}, with the pooling mean, cls or lasttoken"
        )
    return SentenceModules(
        _POOLINGS[chosen.pop()], "Normalize" in kinds, longest if isinstance(longest, int) else None
    )


def _read(name_or_path: str, file: str) -> Any:
    """The content of a JSON file of a model, or None if it has no such file."""

    def load(source: str | Path, **options: Any) -> Any:
        path = cached_file(
            str(source),
            file,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **options,
        )
        return None if path is None else json.loads(Path(path).read_bytes())

    return load_files("text encoder", name_or_path, load)
