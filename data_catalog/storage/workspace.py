"""The folder layout of a workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

StageName = Literal["download", "encode", "train", "distill", "evaluate"]
MODEL_STAGES: tuple[StageName, ...] = ("train", "distill")
OUTPUT_FOLDERS = {
    "download": "01_images",
    "encode": "02_encodings",
    "train": "03_model",
    "evaluate": "04_report",
    "distill": "05_distilled",
}


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder under which runs keep all their outputs."""

    root: Path

    def outputs(self, stage: str) -> Path:
        """The folder with all outputs of a stage, one subfolder per fingerprint."""
        return self.root / OUTPUT_FOLDERS[stage]

    def output(self, stage: str, fingerprint: str) -> Path:
        """The folder of one output."""
        return self.outputs(stage) / fingerprint[:12]

    @property
    def references(self) -> Path:
        """The held-out images that scores refer to, for all evaluations of the same encodings."""
        return self.root / "references"

    @property
    def comparisons(self) -> Path:
        return self.root / "comparisons"

    def sweep(self, model: str) -> Path:
        """The results of sampling sweeps for the model with this fingerprint."""
        return self.root / "sweeps" / model[:12]

    @property
    def logs(self) -> Path:
        """The logs and records of runs, on this machine."""
        return self.root / "logs"

    @property
    def runs(self) -> Path:
        """The configs of runs that have a name, on this machine."""
        return self.root / "runs"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    @property
    def mlflow_database(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlartifacts"

    @property
    def tensorboard(self) -> Path:
        """The event files of TensorBoard, one folder for each name of a run."""
        return self.root / "tensorboard"

    @property
    def prefect_home(self) -> Path:
        return self.root / "prefect"
