"""Tokens of prompts are counted while another thread encodes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.serving.token_counter import token_counter
from tld_model.config import TextSettings
from tld_model.encoders.text_encoder import TextEncoder, load_text_encoder


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return load_text_encoder("shapes-clip", "cpu")


def test_tokens_beyond_the_longest_prompt_are_counted_too(encoder: TextEncoder) -> None:
    count = token_counter(encoder)
    short, long = "a red star", "a red star " * 100
    assert count(short) == len(encoder.tokenize([short])["input_ids"][0])
    assert count("") == len(encoder.tokenize([""])["input_ids"][0])
    assert len(encoder.tokenize([long])["input_ids"][0]) == encoder.longest
    assert count(long) > 3 * encoder.longest


def test_the_template_counts(encoder: TextEncoder) -> None:
    settings = TextSettings(template="a picture of {}")
    templated = load_text_encoder("shapes-clip", "cpu", settings=settings)
    assert token_counter(templated)("a star") > token_counter(encoder)("a star")


def test_counting_does_not_disturb_an_encoder_at_work(encoder: TextEncoder) -> None:
    count, long = token_counter(encoder), "a red star " * 100
    expected = count(long)
    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(count, long) for _ in range(200)]
        lengths = [encoder.tokenize([long])["input_ids"].shape[1] for _ in range(200)]
    assert {future.result() for future in counts} == {expected}
    assert set(lengths) == {encoder.longest}
