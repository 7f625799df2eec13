"""MLflow's registry: which trained models are fit for use, and which of them is the champion.

A model is registered under the name of its run, by its report: once for each report, whatever is
rerun. One that reached what evaluate.require demands is registered by itself, and becomes the
champion where it beats the one before by more than chance explains. `tld promote` does both by
hand.
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

from data_catalog.model_files import MODEL_FILE
from data_catalog.storage.manifest import Manifest
from flows.tracking.logged_model import DETAILS_FILE, log_model, read_details
from pipeline.config.run import RunConfig
from pipeline.export.model_card import model_card

CHAMPION = "champion"
# What decides, the first that both have.
_DECIDES = ("prompt_accuracy", "clip_score")
_REPORT, _DIGEST, _SETTLED = "tld.report", "tld.digest", "tld.settled"
_SCORES, _REFERENCE = "tld.scores", "tld.reference"

# It says that it waits for a version that is there at once.
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
    """A version of a registered model, and its scores: each with the low and high end of its
    interval."""

    name: str
    version: str
    scores: Mapping[str, Sequence[float]]
    reference: str  # what it was judged on
    settled: bool = (
        False  # it has met the champion, or somebody has decided: a rerun changes nothing
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model should be the champion, and why."""

    wins: bool
    reason: str


@dataclass(frozen=True, slots=True)
class RegisteredFiles:
    """A registered model on this disk: its denoiser, and the encoders that it works with."""

    denoiser: Path
    vae: str
    clip: str


def register(client: MlflowClient, experiment_id: str, candidate: Candidate) -> Registered:
    """Register the model of a report with its card, unless it is; a run that was killed on the way
    is completed."""
    config, model, report = candidate.config, candidate.model, candidate.report
    name = config.name
    try:
        client.create_registered_model(
            name, description="Made and scored by tld; see the cards of its versions."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if there := _version_of(client, name, report):
        return there
    usual = config.evaluate
    logged = log_model(
        client, experiment_id, model.made_by, model, candidate.encodings, usual.ema, usual.sampling
    )
    mlflow.set_tracking_uri(
        client.tracking_uri
    )  # a store on this disk resolves models:/ by MLflow's own setting
    card = model_card(candidate.encodings, model, report, name, source=config.download.known_source)
    made = client.create_model_version(
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
    return _told(made)


def is_settled(client: MlflowClient, name: str, report: Manifest) -> bool:
    """Whether the model of a report is registered and has met the champion; not so where a kill
    came between."""
    there = _version_of(client, name, report)
    return there is not None and there.settled


def mark_decided(client: MlflowClient, registered: Registered) -> None:
    """Note that it has met the champion, after the alias was given: what somebody promotes later
    stands."""
    client.set_model_version_tag(registered.name, registered.version, _SETTLED, "true")


def champion(client: MlflowClient, name: str, alias: str = CHAMPION) -> Registered | None:
    """The version that has the alias, where there is one."""
    try:
        return _told(client.get_model_version_by_alias(name, alias))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def named_models(client: MlflowClient) -> frozenset[str]:
    """Fingerprints of all models that have an alias, as the champion has: somebody may use them by
    it."""
    found: set[str] = set()
    token: str | None = None
    while True:
        page = client.search_registered_models(max_results=100, page_token=token)
        for model in page:
            for version in set(model.aliases.values()):
                found.add(
                    client.get_model_version(model.name, str(version)).tags.get("tld.model", "")
                )
        if not (token := page.token):
            return frozenset(found)


def compare_with_champion(challenger: Registered, present: Registered | None) -> Verdict:
    """Whether a challenger beats the present champion by more than the interval of their
    difference, which two independent intervals give: its half width is the root of the sum of their
    squares."""
    if present is None:
        return Verdict(True, "there was no champion")
    if present.version == challenger.version:
        return Verdict(False, "it is the champion")
    if present.reference != challenger.reference:
        return Verdict(
            False,
            "the champion was judged on other held-out pictures: compare them, then tld promote",
        )
    name = next(
        (name for name in _DECIDES if name in present.scores and name in challenger.scores), None
    )
    if name is None:
        return Verdict(False, f"no score of both decides: neither {' nor '.join(_DECIDES)}")
    (new, *new_ends), (old, *old_ends) = challenger.scores[name], present.scores[name]
    half = math.hypot(*((high - low) / 2 for low, high in (new_ends, old_ends)))
    told = f"{name} {new:.4g} against {old:.4g}, a difference of {new - old:+.3g} ± {half:.2g}"
    return Verdict(new - old > half, told)


def set_champion(client: MlflowClient, winner: Registered, alias: str = CHAMPION) -> None:
    """Give a version the alias."""
    client.set_registered_model_alias(winner.name, alias, winner.version)


def registered_files(uri: str, tracking: str) -> RegisteredFiles:
    """The files of `models:/NAME/VERSION`, `models:/NAME@ALIAS` (also `models:/NAME/ALIAS`) or
    `runs:/…`, fetched where they are not on this disk. Raises MlflowException where there is no
    such model, or none of ours."""
    from mlflow.artifacts import download_artifacts

    kind, _, rest = uri.partition(":/")
    name, slash, version = rest.strip("/").partition("/")
    if kind == "models" and slash and not version.isdigit() and "@" not in rest:
        uri = f"models:/{name}@{version}"
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(tracking)  # what it fetches with looks there alone
    folder = Path(download_artifacts(uri))
    if not (folder / DETAILS_FILE).is_file():
        raise MlflowException(f"{uri} is no model of tld: it has no {DETAILS_FILE}")
    try:
        details = read_details(folder)
    except ValueError as error:
        raise MlflowException(f"{uri} is no model of tld: {error}") from error
    return RegisteredFiles(folder / MODEL_FILE, details.vae, details.clip)


def _version_of(client: MlflowClient, name: str, report: Manifest) -> Registered | None:
    """The version that was registered by this report, where one was."""
    for version in client.search_model_versions(f"name='{name}'", max_results=1000):
        if (
            version.tags.get(_REPORT) == report.fingerprint
            and version.tags.get(_DIGEST) == report.digest
        ):
            return _told(version)
    return None


def _reference(candidate: Candidate) -> str:
    """What its scores are judged on: the held-out pictures, and how many of them."""
    held_out = candidate.model.settings.get("held_out_fraction")
    return f"{candidate.encodings.digest[:12]} {held_out} {candidate.report.rows}"


def _scores(report: Manifest) -> dict[str, list[float]]:
    """Score -> value and the ends of its interval."""
    scores, intervals = report.figures["scores"], report.figures["intervals"]
    return {
        name: [scores[name], *intervals[name]]
        for name in scores
        if name in intervals and "/" not in name
    }


def _told(version: ModelVersion) -> Registered:
    tags = version.tags
    scores, reference = json.loads(tags.get(_SCORES, "{}")), tags.get(_REFERENCE, "")
    return Registered(version.name, str(version.version), scores, reference, _SETTLED in tags)
