"""HTTP server of `tld serve`: loads a model, serves it and shuts down gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from dataclasses import replace

import uvicorn

from flows.serve.app import ServedModel, Service, image_service
from flows.serve.card import ModelToServe, model_card
from flows.serve.connections import connection_limit
from flows.serve.guard import Access
from flows.serve.listening import AnnouncingServer, listen, server_settings
from flows.terminal.console import errors, say
from pipeline.config.run import RunConfig
from pipeline.generate.image_metadata import Origin
from pipeline.serving.generate_batch import draw_with
from pipeline.serving.requests import ImageRequest
from pipeline.serving.token_counter import token_counter
from pipeline.serving.work import ModelWork

_TIMEOUT_S = 10  # for the running batch at shutdown
_REFUSAL_S = 5  # after it, to answer the requests of a batch that takes longer


def serve(
    config: RunConfig, served: ModelToServe, access: Access, address: tuple[str, int]
) -> None:
    """Serve at a host and port until Ctrl-C or SIGTERM, then finish the running batch.

    Raises UserError if the port is taken.
    """
    with listen(*address) as listening:
        connection_limit()  # before the model is loaded
        with errors.status("loading the model …"):
            service = _service(config, served, access)
        logging.basicConfig(
            format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr
        )
        settings = server_settings(service.app, _TIMEOUT_S + _REFUSAL_S)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again at the end
            _Server(settings, service, config.name).run([listening])
    ended = service.batches.join(_REFUSAL_S)
    say("stopped")
    if not ended:  # a step still runs, and would crash while Python itself shuts down
        os._exit(0)


def _service(config: RunConfig, served: ModelToServe, access: Access) -> Service:
    evaluation, source = config.evaluate, served.source
    generator = source.load(
        evaluation.device, precision=evaluation.precision, safetensors_only=True
    )
    draw, own = draw_with(generator), source.sampling(evaluation.sampling)
    # The first batch is the slowest, and if the model cannot generate at all, it fails here.
    draw([ImageRequest("an image", 0, 1, replace(own, steps=1))], lambda *_: [True])
    card = model_card(config, served, generator, own)
    model = ServedModel(
        draw,
        ModelWork(generator.denoiser.config, card.edge, own),
        card,
        Origin.of(source.identity(), generator.device),
        own,
        token_counter(generator.text_encoder),
        generator.text_encoder.longest,
    )
    return image_service(model, access, evaluation.batch_size)


class _Server(AnnouncingServer):
    """Server that prints its address once it answers, and drains its queue at shutdown."""

    def __init__(self, settings: uvicorn.Config, service: Service, name: str) -> None:
        super().__init__(
            settings,
            lambda address: (
                f"{name}  {address}/\nmetrics at {address}/metrics, "
                f"OpenAPI at {address}/openapi.json; press Ctrl-C to stop"
            ),
        )
        self.service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.batches.close()
        asyncio.get_running_loop().call_later(_TIMEOUT_S, self.service.batches.abort)
        await super().shutdown(sockets)
