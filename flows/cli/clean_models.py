"""MLflow's knowledge of the models that `tld clean` may remove: aliases, and names of runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from data_catalog.storage.manifest import Manifest
    from pipeline.config.run import RunConfig
    from pipeline.maintenance.cleanup import UnneededFile


def registry_of(settings: RunConfig) -> MlflowClient | None:
    """The MLflow that knows the models of a workspace; None if no run was recorded yet. Raises
    UserError or RecordUnusable if it cannot be opened."""
    from data_catalog.storage.workspace import Workspace
    from flows.tracking.store import client_to_read

    if (
        not os.environ.get("MLFLOW_TRACKING_URI")
        and not Workspace(settings.folder).mlflow_database.exists()
    ):
        return None
    return client_to_read(settings.folder)


def models_with_alias(client: MlflowClient, settings: RunConfig) -> frozenset[str]:
    """Fingerprints of the models that have an alias. Raises UserError if MLflow does not answer."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    from flows.tracking.registry import named_models
    from flows.tracking.store import tracking_uri

    try:
        return named_models(client)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"--other-settings: MLflow at {tracking_uri(settings.folder)} does not say which model "
            f"is the champion, so no output is deleted ({reason}); start MLflow, or leave this "
            "option out"
        ) from error


def models_of_another_mlflow(
    waste: Sequence[UnneededFile], client: MlflowClient | None
) -> frozenset[str]:
    """Fingerprints of models whose training was recorded, but not in this MLflow."""
    from data_catalog.storage.workspace import MODEL_STAGES

    outputs = (item.manifest for item in waste if item.manifest)
    models = [manifest for manifest in outputs if manifest.stage in MODEL_STAGES]
    return frozenset(
        model.fingerprint
        for model in models
        if model.made_by and not (client and _experiment(client, model.made_by))
    )


def run_name(output: Manifest, client: MlflowClient | None) -> str:
    """Name of the run that produced an output. Manifests of earlier versions do not record it, but
    MLflow may know it."""
    if output.name:
        return output.name
    known = _experiment(client, output.made_by) if client and output.made_by else ""
    return known or "a run of unknown name"


def _experiment(client: MlflowClient, run_id: str) -> str:
    """Name of the experiment of a run, which is the name in its config; "" if MLflow does not know
    the run."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_experiment(client.get_run(run_id).info.experiment_id).name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ""
