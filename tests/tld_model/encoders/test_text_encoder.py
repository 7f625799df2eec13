"""Text encoders of every kind, loaded by the real loader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.text_encoders import captions, minilm, needs_minilm, save_decoder, save_t5
from tld_model.config import TextSettings
from tld_model.encoders.pretrained import EncoderError
from tld_model.encoders.text_encoder import TextEncoder, load_text_encoder

CAPTIONS = ["a red star", *captions(3), "", "two dogs " * 300]


@pytest.fixture(params=["clip", "t5", "decoder", pytest.param("minilm", marks=needs_minilm)])
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    make: dict[str, Callable[[], str]] = {
        "clip": lambda: "shapes-clip",
        "t5": lambda: save_t5(tmp_path / "t5"),
        "decoder": lambda: save_decoder(tmp_path / "decoder"),
        "minilm": minilm,
    }
    return make[request.param]()


def test_a_caption_does_not_depend_on_those_beside_it(name: str) -> None:
    for form in ("pooled", "tokens"):
        encoder = load_text_encoder(name, "cpu", form)
        together = encoder(CAPTIONS)
        assert together.shape[-1] == encoder.dim
        for number, caption in enumerate(CAPTIONS):
            alone = encoder([caption])[0]
            beside = together[number]
            if form == "tokens":
                assert not beside[len(alone) :].any(), "zero after the end of a caption"
                assert alone.any(dim=1).all()
                beside = beside[: len(alone)]
            torch.testing.assert_close(beside, alone, atol=1e-4, rtol=1e-4)


def test_long_captions_are_truncated_to_what_the_model_or_the_settings_allow(name: str) -> None:
    encoder = load_text_encoder(name, "cpu", "tokens")
    assert encoder(CAPTIONS).shape[1] == encoder.longest <= 256
    assert load_text_encoder(name, "cpu", "tokens", TextSettings(tokens=6))(CAPTIONS).shape[1] == 6
    with pytest.raises(EncoderError, match=r"takes at most \d+ tokens, not 60000"):
        load_text_encoder(name, "cpu", settings=TextSettings(tokens=60_000))


def test_a_template_stands_around_every_caption(name: str) -> None:
    plain = load_text_encoder(name, "cpu")
    framed = load_text_encoder(name, "cpu", settings=TextSettings(template="a {} on blue"))
    torch.testing.assert_close(framed(["{}star"]), plain(["a {}star on blue"]))
    assert not torch.allclose(framed(["star"]), plain(["star"]), atol=1e-3)


def test_layers_count_from_either_end(name: str) -> None:
    def states(layer: int | None) -> torch.Tensor:
        return load_text_encoder(name, "cpu", "tokens", TextSettings(layer=layer))(CAPTIONS[:2])

    config = load_text_encoder(name, "cpu").model.config
    count = config.num_hidden_layers
    assert torch.equal(states(1), states(-count))
    assert torch.equal(states(count), states(-1))
    assert not torch.allclose(states(1), states(-1), atol=1e-3)
    with pytest.raises(EncoderError, match=f"has {count} layers, so there is no layer 99"):
        states(99)


def test_a_decoder_only_model_ends_a_caption_and_pools_where_it_ends(tmp_path: Path) -> None:
    name = save_decoder(tmp_path)
    pooled, states = (load_text_encoder(name, "cpu", form) for form in ("pooled", "tokens"))
    end = states.tokenizer.eos_token_id
    tokens = states.tokenize(["a red star", ""])
    assert tokens["input_ids"][1, 0] == end
    assert int(tokens["input_ids"][0, -1]) == end
    torch.testing.assert_close(pooled(["a red star"])[0], states(["a red star"])[0, -1])
    torch.testing.assert_close(pooled(["a red star", ""])[1], states([""])[0, 0])


def test_a_t5_pools_the_mean_of_its_tokens(tmp_path: Path) -> None:
    name = save_t5(tmp_path)
    pooled, states = (load_text_encoder(name, "cpu", form) for form in ("pooled", "tokens"))
    assert type(states.model).__name__ == "T5EncoderModel"
    torch.testing.assert_close(pooled(["a star", CAPTIONS[1]])[0], states(["a star"])[0].mean(0))


@needs_minilm
def test_pooled_embeddings_are_those_of_the_models_authors() -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(minilm(), device="cpu").encode(CAPTIONS)
    torch.testing.assert_close(load_text_encoder(minilm(), "cpu")(CAPTIONS), torch.tensor(theirs))


@needs_minilm
def test_captions_that_mean_the_same_are_near() -> None:
    encoder: TextEncoder = load_text_encoder(minilm(), "cpu")
    dog, puppy, bridge = encoder(["a dog on grass", "a puppy in a meadow", "a steel bridge"])
    assert dog @ puppy > dog @ bridge + 0.2
