"""What modules.json and its pooling say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.text_encoders import save_decoder
from tld_model.encoders.names import encoder_identity
from tld_model.encoders.pretrained import EncoderError
from tld_model.encoders.sentence_modules import SentenceModules, read_sentence_modules
from tld_model.encoders.text_encoder import load_text_encoder


def write(folder: Path, pooling: dict[str, Any], *more: str) -> str:
    kinds = ["Transformer", "Pooling", *more]
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    return str(folder)


def test_pooling_and_norm_are_read_and_belong_to_the_identity(tmp_path: Path) -> None:
    assert read_sentence_modules(str(tmp_path)) is None
    name = write(tmp_path, {"pooling_mode_lasttoken": True, "pooling_mode_cls_token": False})
    before = encoder_identity(name)
    assert read_sentence_modules(name) == SentenceModules("last", normalize=False, longest=None)
    write(tmp_path, {"pooling_mode": "cls"}, "Normalize")
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    assert read_sentence_modules(name) == SentenceModules("first", normalize=True, longest=12)
    write(tmp_path, {"pooling_mode_lasttoken": True, "pooling_mode_cls_token": False})
    (tmp_path / "sentence_bert_config.json").unlink()
    assert encoder_identity(name) == before
    write(tmp_path, {"pooling_mode_cls_token": True})
    assert encoder_identity(name) != before


@pytest.mark.parametrize(
    ("pooling", "more", "says"),
    [
        ({"pooling_mode_mean_tokens": True}, ["Dense"], "by Dense"),
        ({"pooling_mode_max_tokens": True}, [], "by pooling_mode_max_tokens"),
        ({}, [], "0 kinds of pooling"),
        ([1], [], "is damaged"),
    ],
)
def test_what_is_not_supported_is_named(
    pooling: Any, more: list[str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(EncoderError, match=says):
        read_sentence_modules(write(tmp_path, pooling, *more))


def test_a_sentence_encoder_is_pooled_as_its_authors_say(tmp_path: Path) -> None:
    folder = Path(save_decoder(tmp_path))
    name = write(folder, {"pooling_mode_mean_tokens": True}, "Normalize")
    pooled, states = (load_text_encoder(name, "cpu", form) for form in ("pooled", "tokens"))
    (mean,) = states(["a red star"]).mean(dim=1)
    assert pooled(["a red star"])[0].allclose(mean / mean.norm(), atol=1e-5)
    assert pooled.recipe.end is None
