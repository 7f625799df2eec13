"""`tld serve`: the trained model of a run as an HTTP service. The service itself is in
flows/serve."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
from flows.cli.model_source import Model, resolve_model, trained_run
from flows.terminal.console import load

if TYPE_CHECKING:
    from flows.serve.card import ModelToServe
    from pipeline.config.run import RunConfig


def serve(
    config: Config,
    *overrides: Overrides,
    host: Annotated[
        str,
        Parameter(help="Address to listen on; any address but loopback requires --token-file."),
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on.")] = 8000,
    token_file: Annotated[
        Path | None,
        Parameter(help="File with one bearer token per line; requests without one are refused."),
    ] = None,
    captions: Annotated[
        bool | None,
        Parameter(
            help="Show captions of the training data as example prompts; by default only where no "
            "token is required."
        ),
    ] = None,
    model: Model = None,
) -> None:
    """Serve the trained model of this run, or another one: a web page, and POST /pictures for
    programs. Stop it with Ctrl-C.

    Concurrent requests are batched.

    Example of a request: curl http://127.0.0.1:8000/pictures --json
    '{"prompt": "a small red star in the center on a blue background", "count": 2, "seed": 7}'
    """
    from flows.serve.guard import read_access

    settings, access = load(config, overrides), read_access(host, token_file)
    served = _model_to_serve(config, overrides, settings, model)
    served = replace(served, shows_captions=not access.tokens if captions is None else captions)

    from flows.serve.server import serve as serve_model

    serve_model(settings, served, access, (host, port))


def _model_to_serve(
    config: Path, overrides: Sequence[str], settings: RunConfig, model: str | None
) -> ModelToServe:
    """The model that --model names, or that of the run. Raises UserError if there is none."""
    from data_catalog.storage.object_access import ObjectStorageError
    from data_catalog.url_table.files import UrlTableError
    from flows.serve.card import ModelToServe
    from pipeline.config.section import ConfigError
    from pipeline.generate.model_source import source_of_run
    from pipeline.stages.freshness import stage_statuses
    from pipeline.stages.run_inputs import RunInputs

    if model is not None:
        source = resolve_model(config, overrides, settings, model)
        encodings = None
        # Of them come the example captions alone, so their data need not be here.
        with suppress(ConfigError, UrlTableError, OSError, ObjectStorageError):
            encodings = stage_statuses(RunInputs(settings))["encode"].manifest
        return ModelToServe(source, encodings)
    encodings, trained, report = trained_run(config, overrides, settings)
    source = source_of_run(settings.name, encodings, trained, settings.evaluate.ema)
    return ModelToServe(source, encodings, trained, report)
