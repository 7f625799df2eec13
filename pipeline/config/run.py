"""The settings of a whole run, a section for each stage. The sentence under a field is its help."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from data_catalog.storage.object_store import is_url
from pipeline.config.download import DownloadConfig
from pipeline.config.encode import EncodeConfig
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.paths import FilePath, TextPath
from pipeline.config.section import Section, refuse_credentials
from pipeline.config.train import TrainConfig
from tld_model.config import DenoiserConfig


class EngineConfig(Section):
    """Where downloads and encodings are worked on. Changes speed only."""

    kind: Literal["local", "ray"] = "local"
    """'local': processes of this machine. 'ray': actors of a Ray cluster, on whose nodes this
    project is installed and the workspace lies under the same path; needs `pip install
    '.[ray]'`."""
    workers: int | None = Field(None, ge=1, le=4096)
    """Workers of each stage that says no number of its own (download.workers, encode.workers)."""
    address: str | None = Field(None, pattern=r"^(auto|[^/\s]+:\d+)$")
    """Of the Ray cluster: host:port, or 'auto' on one of its nodes; null starts Ray on this machine
    for a stage's time."""
    gpus_per_worker: float = Field(0, ge=0)
    """GPUs of the Ray cluster that each encoding worker has for itself; 0.5 lets two share one."""


class CacheConfig(Section):
    """Where root is in object storage: this machine's copies of what it uses. Changes speed
    only."""

    folder: FilePath = Path("~/.cache/tld")
    """For copies, and for what one machine alone knows: the record of runs, without
    MLFLOW_TRACKING_URI."""
    max_gb: float = Field(100, gt=0)
    """Copies go when they take more, those longest out of use first; but for those in use."""


class RunConfig(Section):
    """A whole run: from URLs to a report."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Name of the run, and of its experiment in MLflow."""
    root: TextPath = "data"
    """Workspace: all that the run makes lies here. A folder, or a place in object storage as
    s3://bucket/laion. In this and every other path ~ and $NAME are expanded, and $$ is a dollar
    sign."""
    cache: CacheConfig = CacheConfig()
    engine: EngineConfig = EngineConfig()
    download: DownloadConfig
    encode: EncodeConfig = EncodeConfig()
    model: DenoiserConfig = DenoiserConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @property
    def folder(self) -> Path:
        """The workspace on this machine: root itself, or the folder of its copies."""
        if not is_url(self.root):
            return Path(self.root)
        name = re.sub(r"[^A-Za-z0-9]+", "-", self.root).strip("-")
        return (
            self.cache.folder.expanduser()
            / f"{name}-{hashlib.sha256(self.root.encode()).hexdigest()[:8]}"
        )

    @field_validator("root")
    @classmethod
    def _root_is_a_place(cls, root: str) -> str:
        if not root:
            raise ValueError(
                "is empty; give a folder, or a place in object storage as s3://bucket/laion"
            )
        return refuse_credentials(root).rstrip("/") if is_url(root) else root

    @model_validator(mode="after")
    def _workers_of_the_engine(self) -> RunConfig:
        for stage in ("download", "encode"):
            section = getattr(self, stage)
            if self.engine.workers and "workers" not in section.model_fields_set:
                # While it is made, a frozen model may still be changed.
                object.__setattr__(
                    self, stage, section.model_copy(update={"workers": self.engine.workers})
                )
        return self

    @model_validator(mode="after")
    def _the_average_exists(self) -> RunConfig:
        kept = self.train.ema_decay
        if self.evaluate.ema >= len(kept):
            raise ValueError(
                f"evaluate.ema: there is no average {self.evaluate.ema}; train.ema_decay has "
                f"{len(kept)}"
            )
        return self
