"""Runs from Python: what is refused, skipped, resumed and returned."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_catalog.model_files import CHECKPOINTS_FOLDER, MODEL_FILE, checkpoints
from pipeline.api import run_stages
from pipeline.config.section import ConfigError
from pipeline.run.stage_events import StageEvent
from tests.support.command import REPOSITORY, tld
from tests.support.small import TINY, small
from tests.support.workspace import make_workspace, output, overrides

# Neither a guard nor a file of its own: what somebody types.
SCRIPT = """
import sys
from pipeline.api import run_stages

outputs = run_stages(sys.argv[1], sys.argv[2:], on_event=print)
print(*outputs)
"""


def test_what_is_fresh_is_skipped(tmp_path: Path) -> None:
    config = make_workspace(tmp_path)
    events: list[StageEvent] = []
    outputs = run_stages(TINY, overrides(tmp_path), until="train", on_event=events.append)

    assert [(event.stage, event.kind) for event in events] == [
        ("download", "fresh"),
        ("encode", "fresh"),
        ("train", "fresh"),
    ]
    assert outputs == {stage: output(config, stage) for stage in ("download", "encode", "train")}
    assert events[-1].path == outputs["train"].folder


def test_a_forced_stage_runs_again_and_says_so(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    events: list[StageEvent] = []
    run_stages(TINY, overrides(tmp_path), until="encode", force="encode", on_event=events.append)

    of_encode = [event for event in events if event.stage == "encode"]
    assert [of_encode[0].kind, of_encode[-1].kind] == ["started", "finished"]
    assert any(event.kind == "metrics" and "encoded" in event.values for event in of_encode)


def test_phases_have_outputs_of_their_own(tmp_path: Path) -> None:
    phases = {"phases.second.train.seed": 2}
    make_workspace(tmp_path, **phases)
    # The last phase alone has a distilled model.
    settings = overrides(tmp_path, **phases, **{"distill.sample_steps": 2})
    settings.append("evaluate.model=distilled")
    events: list[StageEvent] = []
    outputs = run_stages(TINY, settings, until="train", on_event=events.append)

    assert [event.stage for event in events] == [
        "download first",
        "encode first",
        "train first",
        "train",
    ]
    assert list(outputs)[-1] == "train"
    assert outputs["train first"].folder != outputs["train"].folder
    assert outputs["train"].parents["train"] == outputs["train first"].digest


def test_what_a_callback_raises_ends_the_run(tmp_path: Path) -> None:
    make_workspace(tmp_path)

    def stop(event: StageEvent) -> None:
        if event.kind == "started":
            raise TimeoutError("enough")

    with pytest.raises(TimeoutError, match="enough"):
        run_stages(TINY, overrides(tmp_path), force="encode", on_event=stop)


def test_a_run_that_cannot_succeed_is_refused_with_all_problems(tmp_path: Path) -> None:
    changed = {"download.urls": tmp_path / "none.csv", "encode.vae": tmp_path / "no-vae"}
    with pytest.raises(ConfigError, match=r"(?s)cannot start this run.*none\.csv.*no-vae"):
        run_stages(TINY, small(tmp_path, **changed))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_stages_that_the_run_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        run_stages(TINY, small(tmp_path), until="distill", force=["trian"])  # type: ignore[list-item]

    assert str(refused.value).splitlines() == [
        "until: this run has no stage 'distill'; it has download, encode, train, evaluate; "
        "distill.sample_steps=4 adds it",
        "force: this run has no stage 'trian'; it has download, encode, train, evaluate",
    ]


def start_script(root: Path) -> subprocess.Popen[str]:
    path = root / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-u", str(path), str(TINY), *small(root / "data")],
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_script_without_a_guard_is_interrupted_and_resumes(tmp_path: Path) -> None:
    script = start_script(tmp_path)
    assert script.stdout
    for line in script.stdout:
        if line.startswith("train     step 6 "):
            script.send_signal(signal.SIGINT)
            break
    said, errors = script.communicate(timeout=120)
    assert script.returncode == -signal.SIGINT, errors
    assert "the checkpoint of step" in said
    (model,) = (tmp_path / "data" / "03_model").iterdir()
    assert checkpoints(model / CHECKPOINTS_FOLDER)
    assert not (model / MODEL_FILE).exists()

    said, errors = start_script(tmp_path).communicate(timeout=300)
    lines = said.splitlines()
    assert lines[-1] == "download encode train evaluate", errors
    assert any(line.startswith("train     resumed at step") for line in lines)
    assert lines[0].startswith("download  fresh: ")

    assert tld("status", TINY, *small(tmp_path / "data")).stdout.count("fresh") == 4
