"""`tld data`: the images and captions of a run, in the browser. The page itself is in
flows/data_page."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
from flows.terminal.console import load, quote_overrides


def data(
    config: Config,
    *overrides: Overrides,
    port: Annotated[int, Parameter(help="Port to listen on. [default: a free one]")] = 0,
) -> None:
    """Look through the images and captions of this run in the browser, before training. Stop it
    with Ctrl-C.

    It shows every row of the input: the pairs that are kept, and those that were left out, each
    with the reason. Search captions; filter by size, CLIP score, source, split and reason; see
    each duplicate beside the image that it repeats. It needs a download, which may be unfinished,
    and changes nothing.

    Example: tld data conf/tiny.yaml
    """
    from flows.data_page.server import serve_data

    serve_data(load(config, overrides), quote_overrides(config, overrides), port)
