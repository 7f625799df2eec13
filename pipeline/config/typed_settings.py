"""Settings as they are typed, a name such as train.steps and a value, and how two runs differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from data_catalog.storage.digests import digest_of
from pipeline.config.phases import SECTIONS
from pipeline.config.run import RunConfig
from pipeline.config.section import section_of, speed_settings
from pipeline.config.yaml_tree import read_value

_NAMES_AND_PLACES = ("name", "root")


def typed_settings(config: RunConfig) -> dict[str, str]:
    """All settings of a run, without the secrets of URLs. Those of a section that is left out are
    missing."""
    return dict(_typed(RunConfig, config.model_dump(mode="json")))


def default_settings() -> dict[str, str]:
    """The value of every setting of a run that sets nothing."""
    tree = {"name": "default", "download": {"urls": "shapes"}, "distill": {}}
    return typed_settings(RunConfig.model_validate(tree))


def overrides_between(base: Mapping[str, str], config: RunConfig) -> dict[str, str]:
    """The settings in which a run differs from another one, in the order of the sections. Its name
    and its workspace do not count, nor do settings of its speed."""
    return {
        name: value
        for name, value in typed_settings(config).items()
        if base.get(name) != value and _can_change_an_output(name)
    }


def settings_digest(config: RunConfig) -> str:
    """Digest of the name of a run and the settings that can change an output."""
    settings = typed_settings(config)
    chosen = {name: text for name, text in settings.items() if _can_change_an_output(name)}
    return digest_of({**chosen, "name": config.name})


def _typed(
    section: type[BaseModel], tree: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        inner = section_of(section, name)
        if section is RunConfig and name == "phases":
            for phase, sections in value.items():
                for changed, settings in sections.items():
                    yield from _typed(SECTIONS[changed], settings, f"phases.{phase}.{changed}.")
        elif inner and isinstance(value, dict):
            yield from _typed(inner, value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _typed_value(value)


def _typed_value(value: object) -> str:
    """The text after `section.key=` that means a value."""
    if isinstance(value, str) and read_value(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _can_change_an_output(name: str) -> bool:
    parts = name.split(".")
    if parts[0] in _NAMES_AND_PLACES:
        return False
    section: type[BaseModel] | None = RunConfig
    for part in parts[2:] if parts[0] == "phases" else parts:
        if section is None or part in speed_settings(section):
            return section is None
        section = section_of(section, part)
    return True
