"""What the config of a text encoder says without torch."""

from __future__ import annotations

from pathlib import Path

from tests.support.text_encoders import save_decoder, save_t5
from tld_model.config import TextSettings
from tld_model.encoders.text_config import settings_problems, text_encoder_problem, text_width


def test_a_config_alone_says_the_width_and_what_the_settings_may_be(tmp_path: Path) -> None:
    decoder, t5 = save_decoder(tmp_path / "decoder"), save_t5(tmp_path / "t5")
    for name, width in ((decoder, 48), (t5, 32)):
        assert text_encoder_problem(name) is None
        assert text_width(name, "pooled") == text_width(name, "tokens") == width
    assert (text_width("shapes-clip", "pooled"), text_width("shapes-clip", "tokens")) == (64, 128)
    assert text_width("owner/name", "pooled") is None
    assert text_encoder_problem("owner/name") is None
    problems = dict(settings_problems(decoder, TextSettings(layer=-4, tokens=41)))
    assert problems == {
        "text_layer": f"is -4, but {decoder!r} has 3 layers",
        "text_tokens": f"is 41, but {decoder!r} takes at most 40",
    }
    assert not dict(settings_problems(decoder, TextSettings(layer=-3, tokens=40)))
    (tmp_path / "decoder/model.safetensors").unlink()
    assert "holds no weights" in str(text_encoder_problem(decoder))
