"""`tld config`: the resolved run, every setting with its value."""

from __future__ import annotations

from flows.cli.groups import Config, Overrides
from flows.terminal.console import load


def show_config(config: Config, *overrides: Overrides) -> None:
    """Print the resolved run, every setting with its value, and stop."""
    import yaml

    print(
        yaml.safe_dump(
            load(config, overrides).model_dump(mode="json"), sort_keys=False, allow_unicode=True
        ),
        end="",
    )
