"""Addresses of MLflow's pages."""

from __future__ import annotations

import pytest

from flows.tracking.pages import run_page_address, server_address


@pytest.mark.parametrize(
    ("uri", "server"),
    [
        ("https://mlflow.internal/path", "https://mlflow.internal/path"),
        ("sqlite:////data/mlflow.db", "http://127.0.0.1:5000"),
        ("postgresql://host/mlflow", "http://127.0.0.1:5000"),
    ],
)
def test_a_store_is_shown_by_its_server_or_by_tld_ui(uri: str, server: str) -> None:
    assert server_address(uri) == server


def test_the_page_of_an_artifact_is_below_that_of_its_run() -> None:
    kind = "?workflowType=machine_learning"
    assert run_page_address("http://host/", "1", "abc") == (
        f"http://host/#/experiments/1/runs/abc{kind}"
    )
    assert run_page_address("http://host", "1", "abc", "distilled/report.html") == (
        f"http://host/#/experiments/1/runs/abc/artifacts/distilled/report.html{kind}"
    )
