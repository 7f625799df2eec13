"""Path settings: shell-style expansion of `~` and `$NAME`, and the escaping that reverses it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from data_catalog.storage.object_store import is_url

_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)


def expand(text: str) -> str:
    """Replace `~` by the home folder, `$NAME` and `${NAME}` by environment variables, and `$$` by
    a dollar sign. URLs stay as they are. Raises ValueError if a name has no value."""
    if "\0" in text:
        raise ValueError("contains a NUL character, which no path can")
    if is_url(text):
        return text
    path = _VARIABLE.sub(_value, text)
    if path.startswith("./~"):  # pathlib would drop the "./"
        return str(Path(path).absolute())
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        home = path.partition("/")[0]
        raise ValueError(
            f"{home!r} is not a user's home folder; write ./{path} for a folder of that name"
        ) from None


def escape(path: str | Path) -> str:
    """Escape a path for a config, so that `expand` returns the original."""
    text = str(path)
    return text if is_url(text) else _VARIABLE.sub(lambda match: f"${match[0]}", text)


def _value(match: re.Match[str]) -> str:
    if match[1]:
        return "$"
    name = match[2] or match[3]
    if value := os.environ.get(name):
        return value
    state = "empty" if name in os.environ else "not set"
    raise ValueError(
        f"the environment variable {name} is {state}; set it, or write $$ for a dollar sign"
    )


def _expand_weights(value: Any) -> Any:
    """Expand the path in `NAME:PATH`; any other value is left to the field's own validation."""
    if not isinstance(value, str):
        return value
    name, colon, path = value.partition(":")
    return f"{name}{colon}{expand(path)}"


def _expand_any(value: Any) -> Any:
    """Expand a path; any other value is left to the field's own validation."""
    return expand(str(value)) if isinstance(value, str | Path) else value


TextPath = Annotated[str, BeforeValidator(_expand_any), PlainSerializer(escape)]
"""A path, URL or name, stored as text."""
NamedWeights = Annotated[str, BeforeValidator(_expand_weights), PlainSerializer(escape)]
"""`NAME` or `NAME:PATH`, stored as text."""
FilePath = Annotated[Path, BeforeValidator(_expand_any), PlainSerializer(escape)]
"""A path on this machine."""
