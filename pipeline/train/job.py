"""The job file of a training: settings for its processes, as JSON in the output folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from data_catalog.model_files import CHECKPOINTS_FOLDER, average_file
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import StageName
from pipeline.config.distill import DistillConfig
from pipeline.config.train import TrainConfig
from tld_model.config import DenoiserConfig

JOB_FILE = "job.json"


class Distillation(BaseModel):
    """The teacher of a distillation, and the steps of both models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: Path
    """Its denoiser.safetensors."""
    guidance: float
    teacher_steps: int
    sample_steps: int

    @classmethod
    def of(cls, config: DistillConfig, teacher: Manifest) -> Distillation:
        """A distillation of the model of a finished training."""
        assert config.ema is not None, "a run sets what distill leaves to evaluate"
        assert config.guidance is not None
        return cls(
            teacher=teacher.file(average_file(config.ema)).absolute(),
            guidance=config.guidance,
            teacher_steps=config.teacher_steps,
            sample_steps=config.sample_steps,
        )


@dataclass(frozen=True, slots=True)
class Mix:
    """The encodings of a phase whose pairs come from those of several phases."""

    encodings: Manifest  # of its own, with the held-out pairs on which it is judged
    sets: Mapping[str, Manifest]
    """Phase -> its encodings, first to last."""


class MixedSet(BaseModel):
    """The encodings of one phase of a mix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phase: str
    encodings: Path


class TrainJob(BaseModel):
    """Everything that the processes of a training need to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encodings: Path
    mix: tuple[MixedSet, ...] = ()
    """Where pairs come from, if not from these encodings alone; config.mix has the weights."""
    out: Path
    config: TrainConfig
    model: DenoiserConfig
    distillation: Distillation | None = None
    """For the stage distill, whose student begins with the weights of its teacher."""
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

    @property
    def stage(self) -> StageName:
        """The stage that this is."""
        return "distill" if self.distillation else "train"
