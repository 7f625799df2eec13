"""Delivery of messages to MLflow. A message may be delivered twice without harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from data_catalog.image_formats import open_image
from flows.tracking.messages import OUR_ID
from flows.tracking.open_runs import OpenRuns
from flows.tracking.outbox import Message
from flows.tracking.store import Store


def deliver(store: Store, root: Path, open_runs: OpenRuns, message: Message) -> str | None:
    """Send a message to MLflow. Returns the id of the run if it creates one."""
    client, run_id, body = store.client, message.run_id, message.body
    match message.kind:
        case "create":
            return _create(client, open_runs, body)
        case "params":
            client.log_batch(run_id, params=[Param(name, value) for name, value in body.items()])
        case "inputs":
            client.log_inputs(run_id, [_dataset_input(dataset) for dataset in body])
        case "config":
            client.log_dict(run_id, body, "config.yaml")
        case "metrics":
            client.log_batch(run_id, metrics=[Metric(*metric) for metric in body])
        case "tags":
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in body.items()])
        case "artifact":
            client.log_artifact(run_id, str(root.resolve() / body[0]), body[1])
        case "image":
            _log_image(client, run_id, root.resolve() / body[0], *body[1:])
        case "end":
            client.set_terminated(run_id, *body)
    return None


def _create(client: MlflowClient, open_runs: OpenRuns, body: dict[str, Any]) -> str:
    """Create the run that began while MLflow was unreachable, unless an attempt that was cut off
    has created it already."""
    experiment_id, tags = body["experiment_id"], body["tags"]
    existing = client.search_runs(
        [experiment_id], f"tags.`{OUR_ID}` = '{tags[OUR_ID]}'", max_results=1
    )
    run = existing[0] if existing else client.create_run(experiment_id, body["start_time"], tags)
    open_runs.add(run.info.run_id)
    return str(run.info.run_id)


def _log_image(
    client: MlflowClient, run_id: str, path: Path, name: str, step: int, timestamp: int
) -> None:
    """Log an image of a step, unless an attempt that was cut off has logged it already: MLflow
    gives each a new name."""
    # As MLflow names the last of the two files of an image.
    prefix, suffix = f"images/{name.replace('/', '~')}+step+{step}+", "+compressed.webp"
    for file in client.list_artifacts(run_id, "images"):
        if file.path.startswith(prefix) and file.path.endswith(suffix):
            return
    client.log_image(run_id, open_image(path), key=name, step=step, timestamp=timestamp)


def _dataset_input(fields: dict[str, str]) -> DatasetInput:
    dataset = Dataset(
        name=fields["name"],
        digest=fields["digest"],
        source_type="local",
        source=json.dumps({"uri": fields["folder"]}),
        profile=json.dumps({"num_rows": int(fields["rows"])}),
    )
    return DatasetInput(
        dataset, tags=[InputTag("mlflow.data.context", f"made by run {fields['made_by']}")]
    )
