"""Freshness of a run with phases: what is shared, what a change makes stale, what is never
offered for deletion or overlooked by a verification."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_catalog.storage.lineage import ancestors
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.maintenance.cleanup import find_unneeded
from pipeline.maintenance.inventory import parents_of, stored
from pipeline.maintenance.reasons import stage_reasons
from pipeline.maintenance.runs import finished_runs
from pipeline.maintenance.verify import forget_damaged, verify
from pipeline.stages.freshness import parent_statuses, run_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.small import TINY
from tests.support.workspace import make_workspace, output, overrides

PHASES = {"phases.long.train.seed": 5, "phases.fine.train": "{seed: 6, lr: 1e-4}"}
# The images of these tests are the same all the same, but not their encodings.
OTHER_DATA = {"phases.fine.download.jpeg_quality": 80, "phases.fine.encode.latent_clip": 8}


def config_of(root: Path, **changed: object) -> RunConfig:
    return load_config(TINY, overrides(root, **{**PHASES, **changed}))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a run with three trained phases, the last one on data of its own."""
    return make_workspace(tmp_path_factory.mktemp("run") / "data", **PHASES, **OTHER_DATA).folder


def states(config: RunConfig) -> dict[str, str]:
    return {status.title: status.state for status in run_statuses(RunInputs(config))}


def test_each_phase_has_stages_and_the_last_one_a_report(root: Path) -> None:
    told = states(config_of(root, **OTHER_DATA))
    assert told.pop("evaluate fine") == "missing"
    assert told == {
        f"{stage} {phase}": "fresh"
        for phase in ("first", "long", "fine")
        for stage in ("download", "encode", "train")
    }
    assert [s.title for s in run_statuses(RunInputs(config_of(root, phase="first")))] == [
        *("download first", "encode first", "train first", "evaluate first")
    ]


def test_phases_with_equal_settings_share_images_and_encodings(root: Path) -> None:
    config = config_of(root, **OTHER_DATA)
    first, second, third = RunInputs(config).chain
    assert [second.shares(stage) for stage in ("download", "encode", "train")] == [
        *(True, True, False)
    ]
    assert second.settings("download") is first.settings("download")
    assert not third.shares("download")
    assert not third.shares("encode"), "its images are others"
    by_stage: dict[str, set[Path]] = {"download": set(), "encode": set(), "train": set()}
    for status in run_statuses(RunInputs(config)):
        if status.stage in by_stage and status.folder:
            by_stage[status.stage].add(status.folder)
    assert {stage: len(folders) for stage, folders in by_stage.items()} == {
        "download": 2,
        "encode": 2,
        "train": 3,
    }


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"phases.fine.train.steps": 7}, {"train fine"}),
        ({"phases.long.train.steps": 7}, {"train long", "train fine"}),
        ({"train.weight_decay": 7}, {"train first", "train long", "train fine"}),
        ({"phases.fine.encode.latent_clip": 9}, {"encode fine", "train fine"}),
        ({"train.log_every": 7}, set()),
    ],
)
def test_a_change_makes_a_phase_and_those_after_it_stale(
    root: Path, change: dict[str, object], stale: set[str]
) -> None:
    told = states(config_of(root, **{**OTHER_DATA, **change}))
    assert {title for title, state in told.items() if state == "stale"} == stale


def test_the_model_of_the_phase_before_is_a_parent_and_no_setting(root: Path) -> None:
    config = config_of(root, **OTHER_DATA)
    before, model = output(config.chain[1], "train"), output(config, "train")
    assert model.parents == {"encode": output(config, "encode").digest, "train": before.digest}
    assert model.settings["init_from"] is None
    assert [one.stage for one in ancestors(output(config, "encode"), model)] == [
        *("download", "encode", "train", "train", "encode", "train")
    ]
    alone = config_of(root, phase="first")
    assert output(alone, "train").parents == {"encode": output(alone, "encode").digest}
    parents = parent_statuses(RunInputs(config), "train")
    assert {name: status.title for name, status in parents.items()} == {
        "encode": "encode fine",
        "train": "train long",
    }


MIXED = {"phases.fine.train.mix": "{first: 3, fine: 7}"}


@pytest.fixture(scope="module")
def mixed_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same workspace, in which the last phase mixes in the encodings of the first."""
    root = tmp_path_factory.mktemp("mix") / "data"
    return make_workspace(root, **PHASES, **OTHER_DATA, **MIXED).folder


def test_the_encodings_of_a_mix_are_parents(mixed_root: Path) -> None:
    config = config_of(mixed_root, **OTHER_DATA, **MIXED)
    model = output(config, "train")
    assert model.parents == {
        "encode": output(config, "encode").digest,
        "encode first": output(config.chain[0], "encode").digest,
        "train": output(config.chain[1], "train").digest,
    }
    assert model.settings["mix"] == {"first": 0.3, "fine": 0.7}
    parents = parent_statuses(RunInputs(config), "train")
    assert {name: status.title for name, status in parents.items()} == {
        "encode": "encode fine",
        "encode first": "encode first",
        "train": "train long",
    }
    outputs = stored(mixed_root)
    (in_inventory,) = (one for one in outputs if one.manifest == model)
    folders = {name: one and one.folder for name, one in parents_of(in_inventory, outputs).items()}
    assert folders == {name: status.folder for name, status in parents.items()}
    assert output(config.chain[0], "encode") in ancestors(output(config, "encode"), model)


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"phases.fine.train.mix": "{fine: 0.7, first: 0.3}"}, set()),
        ({"phases.fine.train.mix": "{first: 1, fine: 1}"}, {"train fine"}),
        ({"phases.fine.train.mix": "{}"}, {"train fine"}),
        ({"phases.fine.encode.latent_clip": 9}, {"encode fine", "train fine"}),
    ],
)
def test_a_change_of_the_mix_makes_its_training_stale(
    mixed_root: Path, change: dict[str, object], stale: set[str]
) -> None:
    told = states(config_of(mixed_root, **{**OTHER_DATA, **MIXED, **change}))
    assert {title for title, state in told.items() if state == "stale"} == stale


def test_a_mix_is_stale_with_the_encodings_of_another_phase(mixed_root: Path) -> None:
    config = config_of(mixed_root, **OTHER_DATA, **MIXED)
    inputs = RunInputs(config)
    parents = {name: s.manifest for name, s in parent_statuses(inputs, "train").items()}
    ready = {name: manifest for name, manifest in parents.items() if manifest}
    run = inputs.stage_run("train", ready)
    assert run.fingerprint == output(config, "train").fingerprint
    others = ready | {"encode first": ready["encode first"].model_copy(update={"digest": "other"})}
    assert inputs.stage_run("train", others).fingerprint != run.fingerprint


def test_a_changed_mix_and_another_set_of_it_are_reasons_to_train_again(mixed_root: Path) -> None:
    def changes(**change: object) -> list[str]:
        config = config_of(mixed_root, **{**OTHER_DATA, **MIXED, **change})
        reasons = stage_reasons(RunInputs(config))
        (train,) = (reason for reason in reasons if reason.status.title == "train fine")
        return [str(change) for change in train.changes]

    assert changes() == []
    assert changes(**{"phases.fine.train.mix": "{first: 1, fine: 1}"}) == [
        "train.mix.first 0.3 -> 0.5",
        "train.mix.fine 0.7 -> 0.5",
    ]
    of_long = changes(**{"phases.fine.train.mix": "{long: 3, fine: 7}"})
    encodings = output(config_of(mixed_root, **OTHER_DATA, **MIXED).chain[1], "encode")
    assert f"encodings of long none -> 02_encodings/{encodings.folder.name}" in of_long


def test_a_listed_run_with_a_mix_has_the_encodings_of_its_own_phase(mixed_root: Path) -> None:
    config = config_of(mixed_root, **OTHER_DATA, **MIXED)
    model = output(config, "train")
    (run,) = (one for one in finished_runs(mixed_root) if one.last.fingerprint == model.fingerprint)
    digests = {one.manifest.digest for one in run.outputs if one.manifest}
    assert {output(phase, "encode").digest for phase in (config.chain[0], config)} <= digests


def test_verify_and_clean_know_the_training_of_a_mix(mixed_root: Path) -> None:
    config = config_of(mixed_root, **OTHER_DATA, **MIXED)
    verified = verify(RunInputs(config))
    assert verified.outputs["train fine"] == output(config, "train")
    assert not verified.damages
    assert not find_unneeded([config], others=True)
    champion = frozenset({output(config, "train").fingerprint})
    other = load_config(TINY, overrides(mixed_root, train__seed=9))
    assert not find_unneeded([other], champion, others=True)


def test_a_missing_phase_leaves_the_next_one_undecided(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    told = states(config_of(tmp_path))
    assert (told["train first"], told["encode long"]) == ("fresh", "fresh")
    assert (told["train long"], told["train fine"]) == ("stale", "stale")


def test_clean_keeps_the_outputs_of_all_phases(root: Path) -> None:
    config = config_of(root, **OTHER_DATA)
    assert not find_unneeded([config], others=True)
    gone = find_unneeded([config_of(root, **OTHER_DATA, phase="long")], others=True)
    assert {file.output.parent.name for file in gone} == {"02_encodings", "03_model"}
    champion = frozenset({output(config, "train").fingerprint})
    other = load_config(TINY, overrides(root, train__seed=9))
    unfinished = {file.output for file in find_unneeded([other], champion, others=True)}
    assert not unfinished, "what the champion was made from, phase by phase"


def test_verify_reads_every_phase_and_repairs_the_one_that_is_damaged(tmp_path: Path) -> None:
    config = make_workspace(tmp_path, **PHASES, **OTHER_DATA)
    before = verify(RunInputs(config))
    assert [*before.outputs] == [
        *("download first", "encode first", "train first", "train long"),
        *("download fine", "encode fine", "train fine"),
    ]
    damaged = output(config.chain[1], "train").file("denoiser.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    after = verify(RunInputs(config))
    assert [damage.path for damage in after.damages] == [damaged]
    assert after.last_damaged_stage == "train"
    forget_damaged(after)
    told = states(config)
    assert told["train long"] == "interrupted"
    assert told["train first"] == "fresh"
