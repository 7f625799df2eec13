"""The work of a stage: when it is done, and on what."""

from __future__ import annotations

from pathlib import Path

from pipeline.run.stage_work import RunJob, do_stage
from pipeline.stages.run_inputs import RunInputs
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace, output


def test_a_fresh_stage_is_not_begun_and_a_forced_one_is(tmp_path: Path) -> None:
    config = make_workspace(tmp_path)
    images, encodings = output(config, "download"), output(config, "encode")
    begun: list[Path] = []
    for force, expected in ((frozenset(), []), (frozenset({"encode"}), [encodings.folder])):
        job = RunJob(RunInputs(config), force)  # type: ignore[arg-type]
        again = do_stage(job, "encode", {"download": images}, RememberingTracker(), begun.append)
        assert begun == expected
        assert again.digest == encodings.digest, "to the bit"
    assert again.made_by == "test-run"
    assert encodings.made_by == "run-of-encode"


def test_shards_go_through_the_function_of_the_caller(tmp_path: Path) -> None:
    """As Prefect's tasks do."""
    config = make_workspace(tmp_path)
    names = list[str]()

    def run_shard(pool: object, item: object) -> object:
        names.append(getattr(item, "name", str(item)))
        return pool.run(item)  # type: ignore[attr-defined]

    job = RunJob(RunInputs(config), frozenset({"encode"}), run_shard=run_shard)  # type: ignore[arg-type]
    do_stage(job, "encode", {"download": output(config, "download")}, RememberingTracker())

    assert sorted(names) == ["00000", "00001"]
