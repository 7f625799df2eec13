"""HTTP server of `tld data`: opens the rows of a run and serves their page on loopback."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading

from data_catalog.figures import ImagesFigures
from data_catalog.storage.receipts import is_evicted
from flows.data_page.app import data_application
from flows.serve.connections import connection_limit
from flows.serve.listening import AnnouncingServer, listen, server_settings
from flows.terminal.console import errors, location_of, say
from flows.terminal.errors import UserError
from pipeline.browse.browser import BrowsedRun, DataBrowser
from pipeline.browse.read_rows import FinishedShards
from pipeline.config.run import RunConfig
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs

_HOST = "127.0.0.1"
_SHUTDOWN_S = 2


def browsed_run(config: RunConfig, words: str) -> BrowsedRun:
    """What the finished shards of a run have to look through. `words` are its config and overrides
    as the user typed them. Raises UserError if no shard is finished."""
    statuses = stage_statuses(RunInputs(config))
    download, encode = statuses["download"], statuses["encode"]
    images = FinishedShards.of(download)
    if images is None:
        why = {
            "stale": "the images there are of other settings or another input",
            "damaged": download.problem,
            "interrupted": "no shard of the download is finished yet",
        }.get(download.state, "nothing is downloaded yet")
        raise UserError(
            f"no images to look through in {location_of(config)}: {why}; type\n"
            f"  tld download {words}"
        )
    encodings = FinishedShards.of(encode)
    notes = []
    if download.manifest is None:
        notes.append(
            f"The download is not finished: {len(images.shards):,} shards so far. It looks for "
            "duplicates at its end."
        )
    if encodings is None:
        notes.append("Nothing is encoded yet, so there are no CLIP scores.")
    elif encode.manifest is None:
        notes.append(f"The encoding is not finished: {len(encodings.shards):,} shards so far.")
    if evicted := sum(is_evicted(images.folder, f"{name}.tar") for name in images.shards):
        notes.append(
            f"The images of {evicted:,} shards were deleted after the encoding "
            "(encode.keep_images=false); their captions are here."
        )
    finished = download.manifest
    has_rejected = finished is None or bool(ImagesFigures.of(finished).account.rejected)
    return BrowsedRun(config, images, encodings, has_rejected, tuple(notes))


def serve_data(config: RunConfig, words: str, port: int) -> None:
    """Serve the page on loopback until Ctrl-C or SIGTERM.

    Raises UserError if the port is taken, or if there is nothing to show.
    """
    with listen(_HOST, port) as listening:
        connection_limit()
        with errors.status("reading the rows …"):
            browser = DataBrowser(browsed_run(config, words))
        logging.basicConfig(
            format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr
        )
        reading = threading.Thread(target=browser.read_input, daemon=True)
        reading.start()
        server = AnnouncingServer(
            server_settings(data_application(browser), _SHUTDOWN_S),
            lambda address: (
                f"{config.name}  {address}/\n{len(browser.rows):,} rows; press Ctrl-C to stop"
            ),
        )
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again at the end
            server.run([listening])
    say("stopped")
    if reading.is_alive():  # it would crash while Python itself shuts down
        os._exit(0)
