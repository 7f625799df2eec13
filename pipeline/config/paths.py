"""Paths in settings: `~` and `$NAME` are expanded as a shell does, and a path is written so that it
reads the same."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from data_catalog.storage.object_store import is_url

_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)


def expand(given: str) -> str:
    """A path with the home folder for `~` and values for `$NAME` and `${NAME}`; `$$` is a dollar
    sign. URLs stay as they are. Raises ValueError."""
    if "\0" in given:
        raise ValueError("holds a NUL character, which no path can")
    if is_url(given):
        return given
    path = _VARIABLE.sub(_value, given)
    if path.startswith("./~"):  # which pathlib would shorten
        return str(Path(path).absolute())
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        home = path.partition("/")[0]
        raise ValueError(
            f"{home!r} is no home folder of a user; write ./{path} for a folder of that name"
        ) from None


def escape(path: str | Path) -> str:
    """How a path is written in a config, so that `expand` gives it back."""
    text = str(path)
    return text if is_url(text) else _VARIABLE.sub(lambda found: f"${found[0]}", text)


def _value(found: re.Match[str]) -> str:
    if found[1]:
        return "$"
    name = found[2] or found[3]
    if value := os.environ.get(name):
        return value
    state = "empty" if name in os.environ else "not set"
    raise ValueError(
        f"the environment variable {name} is {state}; set it, or write $$ for a dollar sign"
    )


def _expand_any(given: Any) -> Any:
    """What is no path is left to the field's own check."""
    return expand(str(given)) if isinstance(given, str | Path) else given


TextPath = Annotated[str, BeforeValidator(_expand_any), PlainSerializer(escape)]
"""A path, URL or name, kept as text."""
FilePath = Annotated[Path, BeforeValidator(_expand_any), PlainSerializer(escape)]
"""A path of this machine."""
