"""The file of a config: where a command's CONFIG is, a path, the name of a shipped config, or that
of a run; and the JSON Schema that editors check it by."""

from __future__ import annotations

import difflib
from pathlib import Path

from data_catalog.storage.workspace import Workspace
from pipeline.config.section import ConfigError

DEFAULT_WORKSPACE = Workspace(Path("data"))
_PRESETS = Path(__file__).parent / "presets"
SCHEMA_FILE = _PRESETS / "tld.schema.json"
"""The JSON Schema of configs. A config whose first line names it is checked while it is typed."""


def shipped_configs() -> dict[str, Path]:
    """The files of the configs that are part of the package, by name."""
    return {path.stem: path for path in sorted(_PRESETS.glob("*.yaml"))}


def find_config_file(config: Path) -> Path:
    """The file that a user means: an existing one, else a shipped one, of which the name is enough
    (`tiny` or `tiny.yaml`), else that of a run of the default workspace that has this name.

    Raises:
        ConfigError: there is none.
    """
    if config.exists() and not config.is_dir():
        return config
    shipped = shipped_configs()
    named = {path.stem: path for path in sorted(DEFAULT_WORKSPACE.runs.glob("*.yaml"))}
    name = config.name.removesuffix(".yaml")
    if str(config) == config.name and (path := shipped.get(name) or named.get(name)):
        return path
    close = difflib.get_close_matches(name, {**shipped, **named}, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    runs = f"; the runs with a name are {', '.join(named)}" if named else ""
    copied = close[0] if close and close[0] in shipped else "tiny"
    raise ConfigError(
        f"no config file at {config}; {hint}tld ships {', '.join(shipped)}{runs}; copy one with\n"
        f"  tld config {copied} > mine.yaml"
    )
