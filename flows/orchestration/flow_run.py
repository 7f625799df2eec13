"""What Prefect shows of a flow run: its name, its log, and its page."""

from __future__ import annotations

import contextlib

import httpx
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flows.orchestration.run_summary import AddressOf, closing_summary, reports_of, run_page
from pipeline.stages.run_inputs import RunInputs

# What Prefect's client raises where a server refuses something or does not answer; RuntimeError
# where it cannot ask for the server's version.
_NO_ANSWER = (httpx.HTTPError, RuntimeError)


def name_flow_run(name: str) -> None:
    """Give this flow run a name. A server that refuses it, or does not answer, fails no run."""
    with contextlib.suppress(*_NO_ANSWER), get_client(sync_client=True) as client:
        client.set_flow_run_name(flow_run.id, name)


def publish_results(inputs: RunInputs, run_id: str, address_of: AddressOf) -> None:
    """Log the closing summary, and show stages, scores and links as an artifact of this flow run.
    `run_id` is the run in MLflow. A server that refuses it, or does not answer, fails no run."""
    if summary := closing_summary(inputs.config, reports_of(inputs)):
        get_run_logger().info(f"scores and files\n{summary}")
    page = run_page(inputs, run_id, address_of)
    try:
        create_markdown_artifact(
            page, key="run", description=f"Stages and scores of {inputs.config.name}"
        )
    except _NO_ANSWER as error:
        get_run_logger().warning(f"Prefect does not show the results: {error}")
