"""The report before this one: how scores and settings have changed since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_catalog.figures import ReportFigures
from data_catalog.scores import Score, whole_scores
from data_catalog.storage.lineage import parent
from data_catalog.storage.manifest import Manifest, ManifestError, read_manifest_alone
from data_catalog.storage.workspace import Workspace
from pipeline.config.evaluate import EvaluateConfig
from pipeline.stages.output_settings import output_settings


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting that differs. A value that is not recorded is the default."""

    name: str
    before: str
    now: str


@dataclass(frozen=True, slots=True)
class EarlierReport:
    """The newest other report on the same encodings, of as many prompts."""

    made_at: str
    scores: Mapping[Score, float]
    changes: tuple[SettingChange, ...]


def earlier_report(
    encodings: Manifest, model: Manifest, config: EvaluateConfig, out: Path
) -> EarlierReport | None:
    """The report before the one that is made in `out` of this model; None if there is none whose
    model is still there."""
    workspace = Workspace(encodings.folder.parents[1])
    for before in sorted(_reports(workspace, encodings, out), key=_age, reverse=True):
        their_model = parent(workspace, before, model.stage)
        if their_model is None or before.settings["prompts"] != config.prompts:
            continue
        settings = output_settings("evaluate", config)
        changes = [
            *_changes(model.stage, their_model.settings, model.settings),
            *_changes("evaluate", before.settings, settings),
        ]
        scores = ReportFigures.of(before).scores
        return EarlierReport(
            before.made_at,
            {score: scores[score.name] for score in whole_scores(scores)},
            tuple(changes),
        )
    return None


def _reports(workspace: Workspace, encodings: Manifest, out: Path) -> Iterator[Manifest]:
    for path in workspace.outputs("evaluate").glob("*/manifest.json"):
        try:
            report = read_manifest_alone(path.parent)
        except ManifestError:
            continue
        same = report and report.parents.get("encode") == encodings.digest
        if report and same and path.parent.name != out.name:
            yield report


def _age(report: Manifest) -> str:
    return report.made_at


def _changes(
    section: str, before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[SettingChange]:
    old, new = dict(_flat(section, before)), dict(_flat(section, now))
    for name in sorted(old.keys() | new.keys()):
        values = [values.get(name, "default") for values in (old, new)]
        if values[0] != values[1]:
            yield SettingChange(name, *values)


def _flat(section: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The settings as a user types them: section.key and the value."""
    for key, value in settings.items():
        if key.startswith("features"):
            continue  # the names of the scores say them
        if isinstance(value, dict):
            # The settings of the model are recorded with those of its training.
            yield from _flat(key if key == "model" else f"{section}.{key}", value)
        else:
            yield f"{section}.{key}", str(value)
