"""`tld serve`: the trained model of a run as an HTTP service. The service itself is in
flows/serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
from flows.cli.model_source import trained_run
from flows.terminal.console import load


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
) -> None:
    """Serve the trained model of this run: a web page, and POST /pictures for programs. Stop it
    with Ctrl-C.

    Concurrent requests are batched.

    Example of a request: curl http://127.0.0.1:8000/pictures --json
    '{"prompt": "a small red star in the center on a blue background", "count": 2, "seed": 7}'
    """
    from flows.serve.guard import read_access

    settings, access = load(config, overrides), read_access(host, token_file)
    encodings, trained, report = trained_run(config, overrides, settings)

    from flows.serve.card import ModelToServe
    from flows.serve.server import serve as serve_model
    from pipeline.generate.model_source import source_of_run

    source = source_of_run(settings.name, encodings, trained, settings.evaluate.ema)
    served = ModelToServe(source, encodings, trained, report)
    serve_model(settings, served, access, (host, port))
