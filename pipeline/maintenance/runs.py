"""The finished runs of a workspace, the settings in which runs of one name differ, and the names
that runs have in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_catalog.storage.manifest import Manifest
from pipeline.config.named_runs import named_runs
from pipeline.config.run import RunConfig
from pipeline.maintenance.inventory import StoredOutput, parents_of, stored
from pipeline.stages.freshness import run_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.setting_changes import recorded_settings, setting_text


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished output from which no other was made, with all that it was made from."""

    last: Manifest
    outputs: tuple[StoredOutput, ...]
    """Those that it was made from, as far as they are still there, and itself at the end."""
    settings: Mapping[str, Mapping[str, Any]]
    """By stage, the settings of these outputs as a user types them."""
    differs: Mapping[str, str] = field(default_factory=dict)
    """Values of the settings that are not the same in all runs of this name."""

    @property
    def bytes(self) -> int:
        """Of all its outputs, those that it shares with other runs included."""
        return sum(output.bytes for output in self.outputs)


def finished_runs(root: Path) -> list[FinishedRun]:
    """The runs of a workspace, newest first. Each report is one, and each output without a further
    one: a model that was not evaluated, for example."""
    outputs = stored(root)
    parents = {
        parent.folder for one in outputs for parent in parents_of(one, outputs).values() if parent
    }
    runs = [
        _run(output.manifest, dict(_lineage(output, outputs)))
        for output in outputs
        if output.manifest and output.folder not in parents
    ]
    by_name: dict[str, list[FinishedRun]] = {}
    for run in runs:
        by_name.setdefault(run.last.name, []).append(run)
    compared = [run for same in by_name.values() for run in _compared(same)]
    return sorted(compared, key=_age, reverse=True)


def names_of_outputs(workspace: RunConfig) -> dict[Path, tuple[str, ...]]:
    """The names of the runs to which each output in the workspace of a run belongs, as far as the
    files that their configs name are still there."""
    names: dict[Path, tuple[str, ...]] = {}
    for name, config in named_runs(workspace).items():
        with suppress(OSError, ValueError):
            for status in run_statuses(RunInputs(config)):
                if status.folder:
                    folder = status.folder.resolve()
                    names[folder] = tuple(dict.fromkeys((*names.get(folder, ()), name)))
    return names


def _age(run: FinishedRun) -> str:
    return run.last.made_at


def _lineage(
    output: StoredOutput,
    outputs: Sequence[StoredOutput],
    phase: str = "",
    seen: frozenset[Path] = frozenset(),
) -> Iterator[tuple[str, StoredOutput]]:
    """An output and all that it was made from, download first, by stage. A stage of a phase before
    begins with `before: `, and one whose encodings are mixed in with the name of its phase. Two
    outputs of equal content are never walked in a circle."""
    for name, parent in parents_of(output, outputs).items():
        stage, _, mixed = name.partition(" ")
        if parent and parent.folder not in seen:
            above = f"{phase}before: " if stage == output.stage else phase
            above += f"{mixed}: " if mixed else ""
            yield from _lineage(parent, outputs, above, seen | {output.folder})
    yield f"{phase}{output.stage}", output


def _run(last: Manifest, lineage: Mapping[str, StoredOutput]) -> FinishedRun:
    settings = {}
    for stage, output in lineage.items():
        if manifest := output.manifest:
            typed = recorded_settings(output.stage, manifest.settings)
            typed[f"version of {output.stage}"] = manifest.version
            phase = stage.removesuffix(output.stage)
            settings[stage] = {phase + name: value for name, value in typed.items()}
    outputs = {output.folder: output for output in lineage.values()}
    return FinishedRun(last, tuple(outputs.values()), settings)


def _compared(runs: Sequence[FinishedRun]) -> Iterator[FinishedRun]:
    """Runs of one name, each with the settings that are not the same in all of them that have their
    stage."""
    texts: dict[str, set[str]] = {}
    for run in runs:
        for stage in run.settings:
            for name in _names(runs, stage):
                texts.setdefault(name, set()).add(setting_text(run.settings[stage], name))
    for run in runs:
        differs = {
            name: setting_text(run.settings[stage], name)
            for stage in run.settings
            for name in _names(runs, stage)
            if len(texts[name]) > 1
        }
        yield replace(run, differs=differs)


def _names(runs: Sequence[FinishedRun], stage: str) -> dict[str, None]:
    """The settings of a stage in any of these runs."""
    return dict.fromkeys(name for run in runs for name in run.settings.get(stage, ()))
