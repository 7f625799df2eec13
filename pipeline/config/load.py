"""Loading of a run config from a YAML file and section.key=value overrides."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ValidationError,
)

from data_catalog.text_files import TextFileError, read_text
from pipeline.config.config_file import find_config_file
from pipeline.config.run import RunConfig
from pipeline.config.section import UNSPEAKABLE, ConfigError, section_of
from pipeline.config.yaml_tree import YamlError, read_tree, read_value

_LONGEST_SHOWN = 200  # characters of a value
_LARGEST_CONFIG = 1 << 20  # bytes


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run from a YAML file, or the name of a shipped one, and `section.key=value`
    overrides.

    Raises:
        ConfigError: the message lists all problems at once.
    """
    path = find_config_file(path)
    tree = _read_tree(path)
    problems = [problem for override in overrides if (problem := _apply_override(tree, override))]
    config: RunConfig | None = None
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        problems += [_describe(dict(problem)) for problem in error.errors()]
    if config is None or problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"invalid settings in {path}:\n{lines}")
    return config


def read_settings(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """What a valid file says, with its overrides: a tree of settings, which is a config too."""
    tree = _read_tree(find_config_file(path))
    for override in overrides:
        _apply_override(tree, override)
    return tree


def _read_tree(path: Path) -> dict[str, Any]:
    try:
        tree = read_tree(read_text(path, _LARGEST_CONFIG))
    except TextFileError as error:
        raise ConfigError(f"config file: {error}") from None
    except YamlError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} must contain sections (name, root, download, …), not {type(tree).__name__}"
        )
    return tree


def _apply_override(tree: dict[str, Any], override: str) -> str | None:
    """Set `section.key=value` in the tree. Returns what is wrong with the override, or None."""
    dotted, equals, raw = override.partition("=")
    if not equals or not dotted:
        return f"{override}: is not an override; write section.key=value"
    *sections, key = dotted.split(".")
    node = tree
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            return f"{dotted}: {section!r} is a value, not a section"
    node[key] = read_value(raw)
    return None


def _describe(problem: dict[str, Any]) -> str:
    """One validation error as a user reads it: setting, problem and value."""
    location = problem["loc"]
    where = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = _settings_at(location[:-1])
        within = [
            f"{name}.{inner}" for name in known for inner in _settings_at((*location[:-1], name))
        ]
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        close = close or difflib.get_close_matches(str(location[-1]), within, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{where}: no such setting; {hint}"
    if problem["type"] == "missing":
        return f"{where}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not location:
        return str(message)
    value = problem["input"]
    if problem["type"] == "string_type" and isinstance(value, bool | int | float):
        return f"{where}: must be text, got {value!r}; put it in quotes"
    if isinstance(value, dict) or problem["type"] == UNSPEAKABLE:
        return f"{where}: {message}"
    return f"{where}: {message}, got {_shortened(repr(value))}"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _settings_at(location: tuple[str | int, ...]) -> list[str]:
    """The names of the settings in a section."""
    if location[:1] == ("phases",):
        location = location[2:]  # those of a phase's section are those of the section
    model: type[BaseModel] | None = RunConfig
    for part in location:
        model = model and section_of(model, str(part))
    return list(model.model_fields) if model else []  # a value has no settings below it
