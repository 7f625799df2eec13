"""What Prefect knows of a real run: names, log and page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.orchestration.flow_run import name_flow_run, publish_results
from flows.orchestration.prefect_api import ask, drain
from flows.orchestration.prefect_server import free_port, prefect_server
from flows.terminal import progress
from flows.tracking.store import tracking_uri
from pipeline.config.run import RunConfig
from pipeline.stages.run_inputs import RunInputs
from tests.support.record import new_record
from tests.support.workspace import make_workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run whose model is not evaluated yet."""
    return make_workspace(new_record(tmp_path_factory.mktemp("flow") / "data"))


@pytest.fixture(scope="module")
def recorded(config: RunConfig) -> Iterator[Mapping[str, list[dict[str, Any]]]]:
    """What Prefect's server has recorded after the whole run and, again, its evaluation alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        patch.setattr(progress, "_LOG_INTERVAL_S", 0.0)
        with prefect_server(config.folder / "prefect") as api:
            from flows.text_to_image import one_stage, text_to_image

            text_to_image(config)
            one_stage(config, "evaluate", force=True)
            drain(api, 60)
            yield records(api)


def records(api: str) -> dict[str, list[dict[str, Any]]]:
    sort = {"flow_runs": "START_TIME_ASC", "task_runs": "EXPECTED_START_TIME_ASC"}
    return {
        kind: ask(api, f"/{kind}/filter", {"sort": sort[kind]} if kind in sort else {})
        for kind in ("flow_runs", "task_runs", "logs", "artifacts")
    }


def test_flow_runs_and_task_runs_say_what_they_are_of(
    recorded: Mapping[str, list[dict[str, Any]]],
) -> None:
    whole, alone = (run["name"] for run in recorded["flow_runs"])
    assert whole.startswith("tiny · download.limit=120 ")
    assert whole.endswith(" more")
    assert alone == whole.replace("tiny", "tiny evaluate", 1)
    names = [run["name"] for run in recorded["task_runs"]]
    assert sorted(names) == [
        *("tiny download", "tiny encode", "tiny evaluate", "tiny evaluate", "tiny train")
    ]


def test_the_graph_has_an_edge_from_each_stage_to_those_that_need_it_and_no_other(
    recorded: Mapping[str, list[dict[str, Any]]],
) -> None:
    """Outputs share parts, such as the name of their run, by which Prefect finds further edges."""
    runs = [
        run for run in recorded["task_runs"] if run["flow_run_id"] == recorded["flow_runs"][0]["id"]
    ]
    names = {run["id"]: run["name"].removeprefix("tiny ") for run in runs}
    edges = {
        (names[source["id"]], names[run["id"]])
        for run in runs
        for sources in run["task_inputs"].values()
        for source in sources
    }
    assert edges == {
        *(("download", "encode"), ("encode", "train")),
        *(("encode", "evaluate"), ("train", "evaluate")),
    }


def test_the_log_has_the_progress_and_the_closing_summary(
    config: RunConfig, recorded: Mapping[str, list[dict[str, Any]]]
) -> None:
    lines = [log["message"] for log in recorded["logs"]]
    assert any(line.startswith("fresh: ") and "03_model" in line for line in lines)
    assert any(line.endswith(", in 4 steps each") for line in lines)
    (report,) = config.folder.glob("04_report/*/report.html")
    summaries = [line for line in lines if line.startswith("scores and files\n")]
    assert len(summaries) == 2
    assert "\n  prompt_accuracy " in summaries[0]
    assert summaries[0].endswith(f"\n  report  {report}")


def test_the_page_leads_to_the_run_and_its_report(
    config: RunConfig, recorded: Mapping[str, list[dict[str, Any]]]
) -> None:
    client = MlflowClient(tracking_uri(config.folder))
    experiment = client.get_experiment_by_name("tiny")
    assert experiment
    alone, whole = client.search_runs([experiment.experiment_id], "tags.`tld.stage` = 'pipeline'")
    report, _ = client.search_runs([experiment.experiment_id], "tags.`tld.stage` = 'evaluate'")
    base = f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs"
    kind = "?workflowType=machine_learning"
    pages = [one["data"] for one in recorded["artifacts"] if one["key"] == "run"]
    for run in (alone, whole):
        assert any(f"[This run in MLflow]({base}/{run.info.run_id}{kind})" in p for p in pages)
    link = f"[in MLflow]({base}/{report.info.run_id}/artifacts/report.html{kind})"
    assert any(link in page for page in pages)
    assert "report.html" in [file.path for file in client.list_artifacts(report.info.run_id)]


@pytest.mark.filterwarnings("ignore:Artifact creation outside of a flow:FutureWarning")
def test_a_server_that_does_not_answer_fails_no_run(config: RunConfig) -> None:
    pages = []

    def address(run_id: str, artifact: str) -> str:
        pages.append(run_id)
        return f"{run_id}/{artifact}"

    nobody = {PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(nobody), disable_run_logger():
        name_flow_run("another")
        publish_results(RunInputs(config), "a run", address)

    assert "a run" in pages  # the page was made, and could not be sent
