"""Counting the tokens of prompts while another thread encodes prompts."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tld_model.encoders.text_encoder import TextEncoder

CountTokens = Callable[[str], int]


def token_counter(encoder: TextEncoder) -> CountTokens:
    """A function that counts the tokens of a prompt, from any thread.

    It has a tokenizer of its own, because a tokenizer keeps whether it truncates as its state.
    """
    own = replace(encoder, tokenizer=copy.deepcopy(encoder.tokenizer))
    one_at_a_time = threading.Lock()

    def count(prompt: str) -> int:
        with one_at_a_time:
            return own.count_tokens(prompt)

    return count
