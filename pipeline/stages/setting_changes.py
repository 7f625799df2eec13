"""Differences between the settings of two outputs or two runs, with names that a user can type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.run import RunConfig
from pipeline.config.typed_settings import typed_settings

_DIGEST = re.compile(r"[0-9a-f]{64}")
_RECORDED_CONTENT = re.compile(r"_(digest|identity)(?=\.|$)")
_CONTENT = "content of "  # of what a setting names
_AT_DEFAULT = "default"
_SECTIONS = tuple(RunConfig.model_fields)
# Nested in a manifest as they are in a config, whatever stage it is of.
_OWN_SECTIONS = ("model", "distill")


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting that differs, with both values as text."""

    name: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.name} {self.before} -> {self.now}"


def setting_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], absent: str = _AT_DEFAULT
) -> tuple[SettingChange, ...]:
    """The settings that differ between two outputs, as `recorded_settings` names them, in the order
    of the sections. `absent` is the text of a setting that only the other one has."""
    names = [name for name in dict.fromkeys([*before, *now]) if _differs(name, before, now)]
    names = [name for name in names if not _follows(name, names)]
    return tuple(
        SettingChange(name, setting_text(before, name, absent), setting_text(now, name, absent))
        for name in sorted(names, key=_position)
    )


def run_changes(first: RunConfig, second: RunConfig) -> tuple[SettingChange, ...]:
    """The settings that differ between two runs, those that change no output included."""
    return setting_changes(typed_settings(first), typed_settings(second), absent="not set")


def recorded_settings(stage: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a manifest records for an output of a stage, by the names that they have in
    a config, such as train.lr. Digests become the content of the setting that names it."""
    section = "train" if stage == "distill" else stage
    own = {name: recorded[name] for name in _OWN_SECTIONS if isinstance(recorded.get(name), dict)}
    others = {name: value for name, value in recorded.items() if name not in own}
    typed = {
        _content_of(f"{section}.{name}"): value for name, value in dict(_leaves(others)).items()
    }
    # Of a distillation the settings of its training repeat some of its own.
    repeated = {f"train.{name}" for name in own.get("distill", {})}
    return {name: typed[name] for name in typed if name not in repeated} | dict(_leaves(own))


def setting_text(settings: Mapping[str, Any], name: str, absent: str = _AT_DEFAULT) -> str:
    """The value of a setting as a user types it, a digest in short. A manifest records no setting
    that was added later and is at its default."""
    if name not in settings:
        return absent
    value = settings[name]
    if isinstance(value, str):
        return value[:12] if _DIGEST.fullmatch(value) else value
    return json.dumps(value, ensure_ascii=False)


def _differs(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if setting_text(before, name) == setting_text(now, name):
        return False
    # `distill: null` in one run is no setting of its own beside distill.steps in the other.
    other = now if name in before else before
    return name in other or not any(key.startswith(f"{name}.") for key in other)


def _follows(name: str, changed: list[str]) -> bool:
    """Whether this is the content of something of which the setting itself differs."""
    setting = name.removeprefix(_CONTENT)
    if setting == name:
        return False
    return any(setting == one or setting.startswith(f"{one}.") for one in changed)


def _content_of(name: str) -> str:
    setting = _RECORDED_CONTENT.sub("", name)
    return name if setting == name else _CONTENT + setting


def _position(name: str) -> int:
    section = name.removeprefix(_CONTENT).partition(".")[0]
    return _SECTIONS.index(section) if section in _SECTIONS else len(_SECTIONS)


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested settings."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield above + name, value
