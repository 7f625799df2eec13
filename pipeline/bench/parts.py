"""What `tld bench` can measure: names of the parts, without torch."""

from __future__ import annotations

from typing import Literal, get_args

Part = Literal["encode", "load", "train", "denoise", "decode"]
PARTS: tuple[Part, ...] = get_args(Part)
LEAST_PAIRS = 1000
