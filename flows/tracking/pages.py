"""Addresses of MLflow's pages."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

UI_PORT = 5000  # of `tld ui`, unless its --port says otherwise
# Without it MLflow opens a page for language models, which is empty.
_KIND = "?workflowType=machine_learning"


def experiments_page(server: str) -> str:
    """The list of experiments."""
    return f"{server.rstrip('/')}/#/experiments{_KIND}"


def experiment_page(server: str, experiment_id: str) -> str:
    """The list of the runs of an experiment."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs{_KIND}"


def run_page_address(server: str, experiment_id: str, run_id: str, artifact: str = "") -> str:
    """The page of a run, or of one of its artifacts."""
    part = f"/artifacts/{quote(artifact)}" if artifact else ""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}{part}{_KIND}"


def server_address(uri: str) -> str:
    """The MLflow server that shows a store: the store itself, or `tld ui` at its usual port."""
    is_server = urlsplit(uri).scheme in ("http", "https")
    return uri if is_server else f"http://127.0.0.1:{UI_PORT}"
