"""What a training process is told to do, as JSON in the output folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.config.train import TrainConfig
from tld_model.config import DenoiserConfig

JOB_FILE = "job.json"


class TrainJob(BaseModel):
    """What the processes are asked to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encodings: Path
    out: Path
    config: TrainConfig
    model: DenoiserConfig
    device: str
    """'cuda' or 'cpu', not 'auto': the processes of all machines must choose the same."""
