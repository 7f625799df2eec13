"""The report before this one: how scores and settings have changed since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_catalog.figures import ReportFigures
from data_catalog.scores import Score, whole_scores
from data_catalog.storage.lineage import finished_outputs, parent
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import Workspace
from pipeline.config.evaluate import EvaluateConfig
from pipeline.stages.output_settings import output_settings
from pipeline.stages.setting_changes import SettingChange, recorded_settings, setting_changes


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
        scores = ReportFigures.of(before).scores
        return EarlierReport(
            before.made_at,
            {score: scores[score.name] for score in whole_scores(scores)},
            setting_changes(
                _settings(before.settings, their_model),
                _settings(output_settings("evaluate", config), model),
            ),
        )
    return None


def _reports(workspace: Workspace, encodings: Manifest, out: Path) -> Iterator[Manifest]:
    for report in finished_outputs(workspace, "evaluate"):
        if report.parents.get("encode") == encodings.digest and report.folder.name != out.name:
            yield report


def _age(report: Manifest) -> str:
    return report.made_at


def _settings(of_report: Mapping[str, Any], model: Manifest) -> dict[str, Any]:
    """The settings of a report and of its model, without the features, which the names of the
    scores say."""
    others = {name: of_report[name] for name in of_report if not name.startswith("features")}
    return recorded_settings(model.stage, model.settings) | recorded_settings("evaluate", others)
