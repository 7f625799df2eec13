"""`tld ui` in a real headless browser: the runs, the loss curve, the samples, the parameters."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from flows.orchestration.prefect_server import free_port
from pipeline.compute.polling import wait_until
from tests.support.browser import chromium, needs_browser
from tests.support.command import start, tld
from tests.support.small import TINY, small
from tests.support.waiting import is_answering

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Path]]:
    """The addresses of a finished run, as they are printed, and its workspace."""
    root = tmp_path_factory.mktemp("ui") / "data"
    done = tld("run", TINY, *small(root))
    assert done.returncode == 0, done.stderr
    port = free_port()
    with start("ui", TINY, *small(root), "--port", str(port)) as process:
        try:
            addresses: dict[str, str] = {}
            assert process.stdout
            while "Prefect" not in addresses:
                name, _, address = process.stdout.readline().partition(" ")
                addresses[name] = address.strip()
            for address in addresses.values():
                assert wait_until(partial(is_answering, address), 120, every_s=0.3), address
            yield addresses, root
        finally:
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(30) == 0


@needs_browser
def test_a_browser_shows_runs_curves_samples_and_parameters(
    site: tuple[dict[str, str], Path], tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    addresses, root = site
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment
    runs = {
        run.data.tags["tld.stage"]: run.info.run_id
        for run in client.search_runs([experiment.experiment_id])
    }
    base = addresses["MLflow"].partition("/runs")[0]
    kind = "?workflowType=machine_learning"
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(60_000)
        screenshots = Path(os.environ.get("TLD_SCREENSHOTS", tmp_path))

        page.goto(addresses["MLflow"])
        run = page.get_by_role("link", name=re.compile("^tiny · download.limit=120"))
        page.locator("[role=gridcell]", has=run).get_by_role("button").first.click(timeout=60_000)
        for name in ("download", "encode", "train", "evaluate"):
            link = page.get_by_role("link", name=re.compile(f"^{name} · download.limit=120"))
            expect(link.first).to_be_visible(timeout=60_000)
        page.screenshot(path=screenshots / "runs.png")

        assert addresses["run"] == f"{base}/runs/{runs['pipeline']}{kind}"
        page.goto("about:blank")  # else the page would keep what it shows
        page.goto(addresses["run"])
        for name in ("evaluate.steps", "prompt_accuracy", "tld.command"):
            expect(page.get_by_text(name).first).to_be_visible(timeout=60_000)
        page.screenshot(path=screenshots / "run.png")

        page.goto(f"{base}/runs/{runs['train']}{kind}")
        for name in ("held_out_loss", "model.width", "encodings"):
            expect(page.get_by_text(name).first).to_be_visible(timeout=60_000)
        page.screenshot(path=screenshots / "train.png")

        page.goto(f"{base}/runs/{runs['train']}/model-metrics{kind}")
        expect(page.locator(".js-plotly-plot, canvas, svg.main-svg").first).to_be_visible(
            timeout=60_000
        )
        page.screenshot(path=screenshots / "curve.png")

        page.goto(f"{base}/runs/{runs['evaluate']}/artifacts/grid.png{kind}")
        expect(
            page.locator("img[alt*='grid'], img[src*='grid'], img[src^='blob:']").first
        ).to_be_visible(timeout=60_000)
        page.screenshot(path=screenshots / "grid.png")

        page.goto(addresses["Prefect"])
        page.get_by_role("link", name="Runs", exact=True).click()
        expect(page.get_by_text("text-to-image").first).to_be_visible(timeout=60_000)
        page.screenshot(path=screenshots / "prefect.png")


def test_prefect_answers_nobody_without_the_link(site: tuple[dict[str, str], Path]) -> None:
    address = urlsplit(site[0]["Prefect"])
    assert len(address.fragment) > 40
    with pytest.raises(HTTPError, match="401"):
        urllib.request.urlopen(f"http://{address.netloc}/api/admin/version", timeout=10)


def test_a_port_that_is_taken_and_an_empty_workspace_are_told(
    site: tuple[dict[str, str], Path], tmp_path: Path
) -> None:
    addresses, root = site
    port = urlsplit(addresses["MLflow"]).port
    taken = tld("ui", TINY, f"root={root}", "--port", str(port))
    assert taken.returncode == 2
    assert "is taken; choose another with --port" in taken.stderr
    empty = tld("ui", TINY, f"root={tmp_path / 'none'}")
    assert empty.returncode == 2
    assert "nothing to show yet" in empty.stderr
