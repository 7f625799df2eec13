"""What is wrong with each field of a request or of metadata, in words for whoever gave it."""

from __future__ import annotations

import reprlib
from typing import Any

from pydantic import ValidationError


def problems_of(error: ValidationError) -> list[tuple[str, str]]:
    """Each invalid field, as a dotted name, and what is wrong with it."""
    return [
        (".".join(map(str, details["loc"])), _message(dict(details))) for details in error.errors()
    ]


def _message(details: dict[str, Any]) -> str:
    message = str(details["msg"]).removeprefix("Value error, ")
    rejected = details["input"]
    if details["type"] == "union_tag_invalid":
        rejected = details["ctx"]["tag"]
        message = f"the command must be one of {details['ctx']['expected_tags']}"
    if details["type"] == "missing" or isinstance(rejected, dict):
        return message
    value = reprlib.repr(rejected)  # of any depth and length
    return f"{message}, got {value if len(value) <= 60 else value[:60] + ' …'}"
