"""The job file of a training: settings for its processes, as JSON in the output folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from data_catalog.model_files import CHECKPOINTS_FOLDER
from pipeline.config.train import TrainConfig
from tld_model.config import DenoiserConfig

JOB_FILE = "job.json"


class TrainJob(BaseModel):
    """Everything that the processes of a training need to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encodings: Path
    out: Path
    config: TrainConfig
    model: DenoiserConfig
    device: str
    """'cuda' or 'cpu', not 'auto', because the processes of all machines must use the same."""

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.out / CHECKPOINTS_FOLDER

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a shard of the model."""
        return self.config.launch.ranks > 1 and self.config.sharding == "fsdp"
