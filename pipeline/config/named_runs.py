"""Names of runs: a run that has one is a config in its workspace, which any command takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from data_catalog.redaction import redact_credentials
from data_catalog.storage.files import replacing
from data_catalog.storage.object_store import is_url
from data_catalog.storage.workspace import Workspace
from pipeline.config.config_file import DEFAULT_WORKSPACE, shipped_configs
from pipeline.config.load import load_config, read_settings
from pipeline.config.paths import escape
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.config.typed_settings import overrides_between, settings_digest, typed_settings
from pipeline.config.yaml_tree import read_tree

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ONLY_OWNER, _ALL = 0o600, 0o666


def run_name(config: RunConfig) -> str | None:
    """The name of a run in its workspace: that of the same settings. Those of speed may differ."""
    digest = settings_digest(config)
    for name, other in named_runs(config).items():
        if settings_digest(other) == digest:
            return name
    return None


def named_runs(workspace: RunConfig) -> dict[str, RunConfig]:
    """The runs that have a name in the workspace of a run, which may have been moved since. A
    config that is no longer valid is left out."""
    runs: dict[str, RunConfig] = {}
    here = f"root={json.dumps(escape(workspace.root))}"
    for path in sorted(Workspace(workspace.folder).runs.glob("*.yaml")):
        with suppress(ConfigError, OSError):
            runs[path.stem] = load_config(path, [here])
    return runs


def config_of_run(root: Path, name: str) -> Path:
    """What to type as the config of a run with a name: its path or, in the default workspace, the
    name alone."""
    path = Workspace(root).runs / f"{name}.yaml"
    return Path(name) if path == DEFAULT_WORKSPACE.runs / path.name else path


def check_name(name: str, config: RunConfig) -> None:
    """Raise ConfigError if a run cannot have this name."""
    if not _NAME.fullmatch(name) or name.endswith(".yaml"):
        raise ConfigError(
            f"--name {name}: a name has up to 100 letters, digits, dots, dashes and underscores, "
            "begins with a letter or a digit, and does not end with .yaml"
        )
    if name in shipped_configs():
        raise ConfigError(f"--name {name}: this is the name of a config that tld ships")
    path = Workspace(config.folder).runs / f"{name}.yaml"
    if path.exists():
        other = load_config(path)
        if settings_digest(other) != settings_digest(config):
            lines = "".join(f"\n  {line}" for line in _differences(other, config))
            raise ConfigError(
                f"--name {name}: this is the name of another run, {path}, which differs in{lines}\n"
                "choose another name, or delete that file to free this one"
            )
    elif (own := run_name(config)) is not None:
        raise ConfigError(
            f"--name {name}: the run with these settings has the name {own}; to change it, rename "
            f"{path.with_stem(own)}"
        )


def write_named_run(
    config_file: Path, overrides: Sequence[str], config: RunConfig, name: str, command: str
) -> bool:
    """Give a run a name, unless it has it already: write the file with its overrides as a config of
    its own. If it holds a password, only its owner may read it. Returns whether the name is new.
    Raises ConfigError as check_name does, which another run may have had pass since."""
    check_name(name, config)
    path = Workspace(config.folder).runs / f"{name}.yaml"
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _config_text(_with_root(read_settings(config_file, overrides), config))
    title = f"# {command}\n" if command.isprintable() else ""
    holds_password = redact_credentials(text) != text
    with replacing(path, _ONLY_OWNER if holds_password else _ALL) as unfinished:
        unfinished.write_text(title + text, encoding="utf-8")
    return True


def _with_root(tree: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """The settings with the place of the workspace as it is seen from every folder, unless it is
    the default one of the folder of the command, in which the name is typed too."""
    folder = config.folder.absolute()
    if is_url(config.root) or folder == DEFAULT_WORKSPACE.root.absolute():
        return tree
    return {**tree, "root": escape(folder)}


def _config_text(tree: Mapping[str, Any]) -> str:
    """The file of a config. PyYAML writes YAML 1.1, so where 1.2 means something else, as by `1e5`
    without quotes, it is JSON, which is YAML too."""
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)
    return text if read_tree(text) == tree else json.dumps(tree, indent=2)


def _differences(other: RunConfig, config: RunConfig) -> list[str]:
    """The settings in which a run differs from another one, with both values."""
    theirs, ours = typed_settings(other), typed_settings(config)
    names = {**overrides_between(theirs, config), **overrides_between(ours, other)}
    names |= {} if other.name == config.name else {"name": ""}
    return [f"{name}={_value(theirs, name)} (here {_value(ours, name)})" for name in names]


def _value(settings: Mapping[str, str], name: str) -> str:
    return settings.get(name, "left out")
