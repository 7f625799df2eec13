"""The settings of a whole run, with one section per stage. The docstring of a field is its help
text."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from data_catalog.storage.object_store import is_url
from data_catalog.storage.workspace import StageName
from pipeline.config.distill import DistillConfig
from pipeline.config.download import DownloadConfig
from pipeline.config.encode import EncodeConfig
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.paths import FilePath, TextPath
from pipeline.config.phases import (
    SECTIONS,
    PhaseConfig,
    PhaseName,
    phases_of,
    stored_phases,
    up_to_chosen,
    validate_phases,
)
from pipeline.config.section import Section, SpeedOnly, refuse_credentials
from pipeline.config.train import TrainConfig
from tld_model.config import DenoiserConfig


class EngineConfig(Section):
    """Where downloading and encoding run."""

    kind: Literal["local", "ray"] = "local"
    """'local' uses processes on this machine. 'ray' uses actors of a Ray cluster; every node needs
    this project installed and the workspace under the same path. Requires
    `pip install 'tld-diffusion[ray]'`."""
    workers: int | None = Field(None, ge=1, le=4096)
    """Number of workers for each stage that sets none itself (download.workers,
    encode.workers)."""
    address: str | None = Field(None, pattern=r"^(auto|[^/\s]+:\d+)$")
    """Address of the Ray cluster: host:port, or 'auto' on one of its nodes. null starts Ray on this
    machine for the duration of a stage."""
    gpus_per_worker: float = Field(0, ge=0)
    """GPUs of the Ray cluster reserved for each encoding worker; with 0.5 two workers share one."""


class CacheConfig(Section):
    """Local copies of the files it uses, when root is in object storage."""

    folder: FilePath = Path("~/.cache/tld")
    """Folder for the copies, and for data that belongs to this machine only, such as the MLflow
    database when MLFLOW_TRACKING_URI is not set."""
    max_gb: float = Field(100, gt=0)
    """Size limit of the copies, in GB. Beyond it, the least recently used ones are evicted, except
    those in use."""


class RunConfig(Section):
    """Settings of a whole run, from images to a report. Of a run with phases, its sections are
    those of the last phase."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Name of the run and of its MLflow experiment."""
    root: TextPath = "data"
    """Workspace, which holds all outputs of the run: a folder, or a place in object storage such as
    s3://bucket/laion. In every path setting, ~ and $NAME are expanded and $$ is a dollar sign."""
    cache: SpeedOnly[CacheConfig] = CacheConfig()
    engine: SpeedOnly[EngineConfig] = EngineConfig()
    download: DownloadConfig
    encode: EncodeConfig = EncodeConfig()
    model: DenoiserConfig = DenoiserConfig()
    train: TrainConfig = TrainConfig()
    distill: DistillConfig | None = None
    """Optional stage: distill the trained model to one that samples in a few steps. null leaves it
    out."""
    phases: dict[PhaseName, PhaseConfig] = Field({})
    """Further trainings after that of `train`, in this order, each of which begins with the weights
    of the one before it: phases.NAME has the settings of download, encode, model and train that
    change. The last one makes the model of the run."""
    phase: str | None = None
    """The last phase that counts, or 'first' for the training of `train`; those after it are left
    out. null counts all."""
    evaluate: EvaluateConfig = EvaluateConfig()
    _before: RunConfig | None = PrivateAttr(None)

    @property
    def before(self) -> RunConfig | None:
        """The run up to the phase before this one, without what belongs to the last model alone."""
        return self._before

    @property
    def chain(self) -> tuple[RunConfig, ...]:
        """The run up to each phase, first to last; the run itself if it has no phases."""
        return (*(self.before.chain if self.before else ()), self)

    def setting(self, name: str) -> str:
        """A setting of this phase as it is typed, such as phases.finetune.train.steps."""
        return f"phases.{self.phase}.{name}" if self.before else name

    @property
    def model_stage(self) -> StageName:
        """The stage that makes the model of evaluate.model."""
        return "distill" if self.evaluate.model == "distilled" else "train"

    @property
    def distilled(self) -> RunConfig:
        """The same run with evaluate.model=distilled."""
        assert self.distill
        return self.model_copy(update={"evaluate": self.distill.evaluation(self.evaluate)})

    @property
    def variants(self) -> tuple[RunConfig, ...]:
        """The run, and if it distills its model also the run with evaluate.model=distilled."""
        both = self.distill and self.evaluate.model == "trained"
        return (self, self.distilled) if both else (self,)

    @property
    def folder(self) -> Path:
        """The workspace on this machine: root itself, or the folder with its copies."""
        if not is_url(self.root):
            return Path(self.root)
        name = re.sub(r"[^A-Za-z0-9]+", "-", self.root).strip("-")
        return (
            self.cache.folder.expanduser()
            / f"{name}-{hashlib.sha256(self.root.encode()).hexdigest()[:8]}"
        )

    @field_validator("distill", mode="before")
    @classmethod
    def _is_a_section(cls, value: object) -> object:
        if value is None or isinstance(value, dict | DistillConfig):
            return value
        raise ValueError("takes settings, for example {sample_steps: 4}")

    @field_validator("root")
    @classmethod
    def _root_is_a_place(cls, root: str) -> str:
        if not root:
            raise ValueError(
                "is empty; give a folder, or a place in object storage such as s3://bucket/laion"
            )
        return refuse_credentials(root).rstrip("/") if is_url(root) else root

    @model_validator(mode="after")
    def _workers_of_the_engine(self) -> RunConfig:
        for stage in ("download", "encode"):
            section = getattr(self, stage)
            if self.engine.workers and "workers" not in section.model_fields_set:
                # A frozen model may still be changed while it is being validated.
                object.__setattr__(
                    self, stage, section.model_copy(update={"workers": self.engine.workers})
                )
        return self

    @model_validator(mode="after")
    def _scores_of_the_report(self) -> RunConfig:
        evaluate, score = self.evaluate, self.train.score
        if score.every:
            columns = evaluate.concept_column and (evaluate.concept_column, evaluate.style_column)
            filled = score.filled(features=evaluate.features, retrieval_columns=columns or None)
            object.__setattr__(self, "train", self.train.model_copy(update={"score": filled}))
        return self

    @model_validator(mode="after")
    def _distilled_as_evaluated(self) -> RunConfig:
        """Complete distill by what evaluate says of the trained model, and then evaluate by what
        distill says of the distilled one."""
        if self.distill is None:
            if self.evaluate.model == "distilled":
                raise ValueError(
                    "evaluate.model: is distilled, but this run has no section distill; set "
                    "distill.sample_steps=4, for example"
                )
            return self
        if self.model.inpainting:
            raise ValueError("distill: cannot distill a model with model.inpainting yet")
        if self.evaluate.guidance_interval != (0.0, 1.0):
            raise ValueError(
                "distill: the teacher is guided at all noise levels; set "
                "evaluate.guidance_interval=[0, 1], or leave distill out"
            )
        object.__setattr__(self, "distill", self.distill.filled(self.evaluate))
        try:
            evaluation = self.distill.evaluation(self.evaluate)
            self.distill.training(self.train)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"distill.{message}") from None
        if self.evaluate.model == "distilled":
            object.__setattr__(self, "evaluate", evaluation)
        return self

    @model_validator(mode="after")
    def _the_average_exists(self) -> RunConfig:
        for section in (self.evaluate, self.distill):
            if section is None or section.ema is None:
                continue
            if problem := self.train.average_problem(section.ema):
                name = "evaluate" if section is self.evaluate else "distill"
                raise ValueError(f"{name}.ema: {problem}")
        return self

    @model_validator(mode="wrap")  # below the others, so that `validate` does what they say
    @classmethod
    def _of_its_last_phase(
        cls, value: Any, validate: ModelWrapValidatorHandler[RunConfig]
    ) -> RunConfig:
        """Take the sections of the last phase, and keep the run up to the phase before it."""
        if not isinstance(value, dict):
            return validate(value)
        tree = up_to_chosen(value)
        if not phases_of(tree):
            return validate(tree)
        before, run = validate_phases(tree, cls.model_validate, validate)
        run._before = before
        return run

    @model_serializer(mode="wrap")
    def _as_typed(
        self, dump: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """The settings as a file has them: the sections of the first phase, and what changes in
        each later one."""
        tree: dict[str, Any] = dump(self)
        if self.before is None:
            return tree
        return tree | stored_phases(
            {
                str(run.phase): {
                    name: getattr(run, name).model_dump(mode=info.mode) for name in SECTIONS
                }
                for run in self.chain
            }
        )
