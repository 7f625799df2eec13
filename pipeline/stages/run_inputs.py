"""What identifies the outputs of a run: settings, files that settings name, and parents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_catalog.feature_names import CLIP, FeatureChoice
from data_catalog.input_rows import digests_of
from data_catalog.model_files import NoCheckpoint, checkpoint_to_continue, model_file
from data_catalog.storage.digests import digest_of, file_digest
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import StageName, Workspace
from pipeline.config.feature_weights import weights_identity
from pipeline.config.mix import mix_shares
from pipeline.config.run import RunConfig
from pipeline.config.score import HELD_OUT_LOSS, ScoreConfig
from pipeline.config.section import ConfigError
from pipeline.stages.dag import StageSpec, stages_of, stages_of_phase
from pipeline.stages.output_settings import output_settings
from tld_model.encoders.names import encoder_identity


@dataclass(frozen=True, slots=True)
class StageRun:
    """A stage with everything that can change its output, and the folder of that output."""

    config: RunConfig
    spec: StageSpec
    settings: Mapping[str, Any]
    """Those that can change the output, as the manifest records them."""
    parents: Mapping[str, Manifest]
    fingerprint: str
    """SHA-256 of the stage, its settings and its parents. It names the folder."""
    folder: Path

    def fingerprint_without(self, *names: str) -> str:
        """The fingerprint of the stage if these settings did not count."""
        settings = {name: self.settings[name] for name in self.settings.keys() - set(names)}
        return _fingerprint(self.spec, settings, self.parents)


class RunInputs:
    """The settings of a run, and the digests of the files that they name. Of a run with phases they
    are those of the last phase.

    The input of stage 1 and the weights of encoders are read once, when a stage asks for its
    settings, so hand this value on instead of making another one. If a file changes meanwhile, the
    value does not.
    """

    def __init__(self, config: RunConfig, *, is_last: bool = True) -> None:
        self.config = config
        self.stages = stages_of(config) if is_last else stages_of_phase(config)
        self.before = RunInputs(config.before, is_last=False) if config.before else None
        """The inputs of the phase before, with whose model the training begins."""
        self._settings: dict[str, dict[str, Any]] = {}

    @property
    def chain(self) -> tuple[RunInputs, ...]:
        """The inputs of each phase, first to last."""
        return (*(self.before.chain if self.before else ()), self)

    def stages_until(self, until: StageName | None) -> list[StageName]:
        """The names of the stages up to one of them, or of all."""
        names = [spec.name for spec in self.stages.values()]
        return names[: names.index(until) + 1] if until else names

    def shares(self, stage: str) -> bool:
        """Whether the output of a stage is that of the phase before, since all that makes it is set
        alike."""
        if not self.before or stage not in ("download", "encode"):
            return False
        config, before = self.config, self.before.config
        same_images = config.download == before.download
        return same_images and (stage == "download" or config.encode == before.encode)

    @property
    def distilled(self) -> RunInputs | None:
        """The inputs with evaluate.model=distilled, if the run evaluates both models. What was read
        is not read again."""
        if len(self.config.variants) == 1:
            return None
        inputs = RunInputs(self.config.distilled)
        inputs.before = self.before
        for stage in self.stages.keys() - {"evaluate"}:
            inputs._settings[stage] = self.settings(stage)
        return inputs

    def settings(self, stage: str) -> dict[str, Any]:
        """The settings that can change a stage's output, as its manifest records them."""
        if self.before and self.shares(stage):
            return self.before.settings(stage)
        if stage not in self._settings:
            self._settings[stage] = _settings_of_output(self.stages[stage], self.config)
        return self._settings[stage]

    def stage_run(self, stage: str, parents: Mapping[str, Manifest]) -> StageRun:
        """The stage on these outputs of its parents; others in `parents` are ignored."""
        spec, settings = self.stages[stage], self.settings(stage)
        parents = {name: parents[name] for name in spec.parents}
        fingerprint = _fingerprint(spec, settings, parents)
        folder = Workspace(self.config.folder).output(stage, fingerprint)
        return StageRun(self.config, spec, settings, parents, fingerprint, folder)


def _fingerprint(
    spec: StageSpec, settings: Mapping[str, Any], parents: Mapping[str, Manifest]
) -> str:
    return digest_of(
        {
            "stage": spec.name,
            "version": spec.version,
            "settings": dict(settings),
            "parents": {name: manifest.digest for name, manifest in parents.items()},
        }
    )


def _settings_of_output(spec: StageSpec, config: RunConfig) -> dict[str, Any]:
    if spec.name == "distill":
        return _distillation(config)
    section = output_settings(spec.name, getattr(config, spec.name))
    match spec.name:
        case "download":
            section |= digests_of(config.download.rows)
        case "encode":
            section["vae_identity"] = encoder_identity(config.encode.vae)
            section["clip_identity"] = config.encode.clip and encoder_identity(config.encode.clip)
            if config.encode.text_encoder:
                section["text_encoder_identity"] = encoder_identity(config.encode.text_encoder)
            if config.download.more_caption_columns:
                section["caption_columns"] = list(config.download.caption_columns)
        case "train":
            section |= _training(config)
        case "evaluate":
            section |= _features(config)
    return section


def _training(config: RunConfig) -> dict[str, Any]:
    """The settings of a training that are not of its section, or count in another form."""
    train = config.train
    settings: dict[str, Any] = {
        "model": output_settings("model", config.model),
        "init_from": train.init_from and _digest("init_from", model_file, train.init_from),
    }
    if train.continue_from:
        settings["continue_from"] = _digest(
            "continue_from", checkpoint_to_continue, train.continue_from
        )
    if train.mix:
        shares = mix_shares(train.mix)
        settings["mix"] = {name: float(share) for name, share in shares.items()}
    if train.score.best_by:
        settings["score"] = _choice_of_best(train.score)
    return settings


def _distillation(config: RunConfig) -> dict[str, Any]:
    """The settings of the distillation's training, the model's, and those of distill."""
    assert config.distill
    training = output_settings("train", config.distill.training(config.train))
    model = output_settings("model", config.model)
    return training | {"model": model, "distill": output_settings("distill", config.distill)}


def _features(config: RunConfig) -> dict[str, Any]:
    """The names of image features and the digests of their weights, in place of the paths; {} if
    only CLIP's are chosen, whose weights are in the encodings."""
    choices = config.evaluate.feature_choices
    return {} if all(c.name == CLIP for c in choices) else _identities(choices)


def _identities(choices: Sequence[FeatureChoice]) -> dict[str, Any]:
    identities = {c.name: weights_identity(c) for c in choices if c.name != CLIP}
    return {"features": [c.name for c in choices], "features_identity": identities}


def _choice_of_best(score: ScoreConfig) -> dict[str, Any]:
    """The settings of the scores on which the best average depends. Those of other scores than
    best_by change curves alone."""
    settings: dict[str, Any] = {"best_by": score.best_by, "every": score.every}
    if score.best_by != HELD_OUT_LOSS:
        settings["prompts"] = score.prompts
    if choices := score.features_of_best:
        settings |= _identities(choices)
    if score.best_by_retrieval:
        settings["retrieval_columns"] = score.retrieval_columns
    return settings


def _digest(setting: str, file_at: Callable[[Path], Path], path: Path) -> str:
    """Digest of the file that a training starts from, or continues. Raises ConfigError if it is
    missing or unreadable."""
    try:
        return file_digest(file_at(path))
    except NoCheckpoint as error:
        raise ConfigError(f"train.{setting}: {error}") from error
    except OSError as error:
        where = error.filename or path
        raise ConfigError(f"train.{setting}: cannot read {where}: {error.strerror}") from error
