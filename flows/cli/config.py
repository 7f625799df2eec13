"""`tld config`: every setting of a run with its value, and the JSON Schema of configs."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
from flows.terminal.console import load, print_data
from flows.terminal.errors import UserError


def show_config(
    config: Config | None = None,
    *overrides: Overrides,
    schema: Annotated[
        bool,
        Parameter(
            negative="",
            help="Print the JSON Schema of configs instead, for editors; no CONFIG is needed.",
        ),
    ] = False,
) -> None:
    """Print every setting of the run with its value, as YAML, and exit.

    Example, a config of your own with all settings: tld config tiny train.lr=3e-4 > mine.yaml
    """
    if schema:
        from pipeline.config.config_file import SCHEMA_FILE

        print_data(SCHEMA_FILE.read_text(encoding="utf-8").rstrip("\n"))
        return
    if config is None:
        raise UserError(
            "name a config: tld config CONFIG; or print the schema: tld config --schema"
        )
    import yaml

    settings = load(config, overrides).model_dump(mode="json")
    print_data(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).rstrip("\n"))
