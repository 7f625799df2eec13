"""MLflow's model registry: models that are good enough for use, and the champion among them.

A model is registered under the name of its run, once for each report, whatever is rerun. A model
that reaches evaluate.require is registered automatically, and becomes the champion if it beats the
present one by more than the confidence interval of the difference. `tld promote` does both by hand.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from data_catalog.figures import ReportFigures
from data_catalog.model_files import MODEL_FILE
from data_catalog.scores import NO_INTERVAL, SCORES, is_part
from data_catalog.storage.manifest import Manifest
from flows.tracking.logged_model import (
    DETAILS_FILE,
    ModelDetails,
    ModelRun,
    log_model,
    read_details,
    registered_name,
)
from pipeline.config.run import RunConfig
from pipeline.export.model_card import model_card

CHAMPION = "champion"
_REPORT, _DIGEST, _SETTLED = "tld.report", "tld.digest", "tld.settled"
_SCORES, _REFERENCE = "tld.scores", "tld.reference"

# It logs that it waits for a version, which exists at once.
logging.getLogger("mlflow.store.model_registry.abstract_store").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained and evaluated model of a run."""

    config: RunConfig
    encodings: Manifest
    model: Manifest
    report: Manifest


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of a registered model, and its scores: each a value with the low and high end of
    its interval, or alone if it has none."""

    name: str
    version: str
    scores: Mapping[str, Sequence[float]]
    reference: str  # the held-out set that it was scored on
    # It was compared with the champion, or a user has decided, so that a rerun changes nothing.
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model should be the champion, and why."""

    wins: bool
    reason: str


@dataclass(frozen=True, slots=True)
class RegisteredFiles:
    """The local files of a registered model: its denoiser, and what is stored beside it."""

    denoiser: Path
    details: ModelDetails


def register(client: MlflowClient, experiment_id: str, candidate: Candidate) -> Registered:
    """Register the model of a report with its card, unless it is registered already. If an earlier
    attempt was killed halfway, this completes it."""
    config, model, report = candidate.config, candidate.model, candidate.report
    name = registered_name(config)
    try:
        client.create_registered_model(
            name, description="Trained and scored by tld; see the cards of its versions."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if existing := _version_of(client, name, report):
        return existing
    evaluate = config.evaluate
    run = ModelRun(client, experiment_id, model.made_by)
    logged = log_model(run, model, candidate.encodings, evaluate.ema, evaluate.sampling)
    # A store on this disk resolves models:/ by MLflow's global setting.
    mlflow.set_tracking_uri(client.tracking_uri)
    card = model_card(candidate.encodings, model, report, name, source=config.download.known_source)
    version = client.create_model_version(
        name,
        f"models:/{logged.model_id}",
        run_id=report.made_by,
        tags={
            _REPORT: report.fingerprint,
            _DIGEST: report.digest,
            "tld.model": model.fingerprint,
            _REFERENCE: _reference(candidate),
            _SCORES: json.dumps(_scores(report)),
        },
        description=card,
        model_id=logged.model_id,
    )
    return _registered(version)


def is_settled(client: MlflowClient, config: RunConfig, report: Manifest) -> bool:
    """Whether the model of a report is registered and was compared with the champion. A kill in
    between makes it False."""
    version = _version_of(client, registered_name(config), report)
    return version is not None and version.settled


def mark_decided(client: MlflowClient, registered: Registered) -> None:
    """Record that the version was compared with the champion. This is done after the alias is set,
    so that a later promotion by hand stands."""
    client.set_model_version_tag(registered.name, registered.version, _SETTLED, "true")


def champion(client: MlflowClient, name: str, alias: str = CHAMPION) -> Registered | None:
    """The version that has the alias, if there is one."""
    try:
        return _registered(client.get_model_version_by_alias(name, alias))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def named_models(client: MlflowClient) -> frozenset[str]:
    """Fingerprints of all models that have an alias, such as the champion. Somebody may use them by
    that alias."""
    fingerprints: set[str] = set()
    token: str | None = None
    while True:
        page = client.search_registered_models(max_results=100, page_token=token)
        for model in page:
            for version in set(model.aliases.values()):
                tags = client.get_model_version(model.name, str(version)).tags
                fingerprints.add(tags.get("tld.model", ""))
        if not (token := page.token):
            return frozenset(fingerprints)


def compare_with_champion(challenger: Registered, present: Registered | None) -> Verdict:
    """Whether a challenger beats the present champion by more than the interval of their
    difference. For two independent intervals, its half width is the root of the sum of the squares
    of theirs."""
    if present is None:
        return Verdict(True, "there was no champion")
    if present.version == challenger.version:
        return Verdict(False, "it is already the champion")
    if present.reference != challenger.reference:
        return Verdict(
            False,
            "the champion was scored on other held-out images: use tld compare, then tld promote",
        )
    decisive = [score.name for score in SCORES.values() if score.decides_champion]
    name = next(
        (name for name in decisive if name in present.scores and name in challenger.scores), None
    )
    if name is None:
        return Verdict(False, f"they share no decisive score: neither {' nor '.join(decisive)}")
    (new, *new_ends), (old, *old_ends) = challenger.scores[name], present.scores[name]
    reason = f"{name} {new:.4g} against {old:.4g}"
    if not new_ends or not old_ends:
        return Verdict(
            False,
            f"{reason}, without an interval ({NO_INTERVAL}): use tld compare, then tld promote",
        )
    half = math.hypot(*((high - low) / 2 for low, high in (new_ends, old_ends)))
    difference = f"a difference of {new - old:+.3g} ± {half:.2g}"
    return Verdict(new - old > half, f"{reason}, {difference}")


def set_champion(client: MlflowClient, winner: Registered, alias: str = CHAMPION) -> None:
    """Set the alias to a version."""
    client.set_registered_model_alias(winner.name, alias, winner.version)


def registered_files(uri: str, tracking: str) -> RegisteredFiles:
    """The files of `models:/NAME/VERSION`, `models:/NAME@ALIAS` (also `models:/NAME/ALIAS`) or
    `runs:/…`, downloaded if they are not on this disk. Raises MlflowException if there is no such
    model, or if it is not a model of tld."""
    from mlflow.artifacts import download_artifacts

    kind, _, rest = uri.partition(":/")
    name, slash, version = rest.strip("/").partition("/")
    if kind == "models" and slash and not version.isdigit() and "@" not in rest:
        uri = f"models:/{name}@{version}"
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(tracking)  # the download uses this global setting alone
    folder = Path(download_artifacts(uri))
    if not (folder / DETAILS_FILE).is_file():
        raise MlflowException(f"{uri} is no model of tld: {DETAILS_FILE} is missing")
    try:
        details = read_details(folder)
    except ValueError as error:
        raise MlflowException(f"{uri} is no model of tld: {error}") from error
    return RegisteredFiles(folder / MODEL_FILE, details)


def _version_of(client: MlflowClient, name: str, report: Manifest) -> Registered | None:
    """The version that was registered for this report, if there is one."""
    for version in client.search_model_versions(f"name='{name}'", max_results=1000):
        if (
            version.tags.get(_REPORT) == report.fingerprint
            and version.tags.get(_DIGEST) == report.digest
        ):
            return _registered(version)
    return None


def _reference(candidate: Candidate) -> str:
    """What identifies the held-out set: encodings, held-out fraction, number of images."""
    held_out = candidate.model.settings.get("held_out_fraction")
    return f"{candidate.encodings.digest[:12]} {held_out} {candidate.report.rows}"


def _scores(report: Manifest) -> dict[str, list[float]]:
    """Score -> its value and the ends of its interval, if it has one."""
    figures = ReportFigures.of(report)
    return {
        name: [value, *figures.intervals.get(name, ())]
        for name, value in figures.scores.items()
        if not is_part(name)
    }


def _registered(version: ModelVersion) -> Registered:
    tags = version.tags
    scores, reference = json.loads(tags.get(_SCORES, "{}")), tags.get(_REFERENCE, "")
    return Registered(version.name, str(version.version), scores, reference, _SETTLED in tags)
