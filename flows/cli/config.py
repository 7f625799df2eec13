"""`tld config`: every setting of a run with its value."""

from __future__ import annotations

from flows.cli.groups import Config, Overrides
from flows.terminal.console import load, print_data


def show_config(config: Config, *overrides: Overrides) -> None:
    """Print every setting of the run with its value, as YAML, and exit.

    Example, a config of your own with all settings: tld config tiny train.lr=3e-4 > mine.yaml
    """
    import yaml

    settings = load(config, overrides).model_dump(mode="json")
    print_data(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).rstrip("\n"))
