"""Names of the parts that `tld bench` measures."""

from __future__ import annotations

from typing import Literal, get_args

Part = Literal["encode", "load", "train", "denoise", "decode"]
PARTS: tuple[Part, ...] = get_args(Part)
LEAST_PAIRS = 1000
