"""The file of a config: where a command's CONFIG is, a path or the name of a shipped config."""

from __future__ import annotations

import difflib
from pathlib import Path

from pipeline.config.section import ConfigError

_PRESETS = Path(__file__).parent / "presets"


def shipped_configs() -> dict[str, Path]:
    """The files of the configs that are part of the package, by name."""
    return {path.stem: path for path in sorted(_PRESETS.glob("*.yaml"))}


def find_config_file(config: Path) -> Path:
    """The file that a user means: an existing one, else a shipped one, of which the name is enough
    (`tiny` or `tiny.yaml`).

    Raises:
        ConfigError: there is neither.
    """
    if config.exists() and not config.is_dir():
        return config
    shipped = shipped_configs()
    name = config.name.removesuffix(".yaml")
    if str(config) == config.name and name in shipped:
        return shipped[name]
    close = difflib.get_close_matches(name, shipped, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigError(
        f"no config file at {config}; {hint}tld ships {', '.join(shipped)}; copy one with\n"
        f"  tld config {close[0] if close else 'tiny'} > mine.yaml"
    )
