"""The Python API: run stages, call the trained model of a run, and open its encodings.

from pipeline.api import load_model, run_stages

run_stages("conf/tiny.yaml", on_event=print)
model = load_model("conf/tiny.yaml")
model("a small red star in the top left on a blue background", seed=7)  # a PIL image
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack, overload

from PIL import Image
from pydantic import TypeAdapter

from data_catalog.model_files import EVENTS_FILE, model_file
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import StageName
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.generate.model_source import ModelSource, source_of_run
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tld_model.config import SamplingSettings

if TYPE_CHECKING:
    from pipeline.dataset.encoded_dataset import EncodedDataset
    from pipeline.dataset.split import Split
    from pipeline.generate.generator import ImageGenerator
    from pipeline.generate.image_size import Size
    from pipeline.reporting.charts import Points
    from pipeline.run.stage_events import OnEvent
    from tld_model.config import SolverName


def run_stages(
    config: str | Path,
    overrides: Sequence[str] = (),
    *,
    until: StageName | None = None,
    force: StageName | Sequence[StageName] = (),
    on_event: OnEvent = lambda _: None,
) -> dict[str, Manifest]:
    """Run the stages of a config in this process, as `tld run` does but without Prefect and MLflow,
    and return their outputs by stage. Stages whose output is fresh are skipped.

    `config` is a YAML file or the name of a shipped one, `overrides` are as on the command line.
    `until` is the last stage, `force` are stages to run again. `on_event` is called with each event
    of a stage, one at a time: `print` shows them. What it raises ends the stage, as Ctrl-C does;
    the same call, without `force`, resumes it.

    Outputs of earlier phases are those of "train NAME", the report of a distilled model that of
    "evaluate distilled". A machine that joins the training of another one returns none.

    Raises:
        ConfigError: the config is invalid, or the run cannot succeed; the message lists all
            problems.
        StageFailed: a stage could not finish; the message says what was kept.
    """
    from pipeline.run.whole_run import make_outputs

    settings = load_config(Path(config), overrides)
    forced: Sequence[StageName] = [force] if isinstance(force, str) else force
    return make_outputs(settings, until, forced, on_event)


class MissingOutput(LookupError):
    """A stage of the run has no output with these settings yet."""


class Choices(TypedDict, total=False):
    """What a call of the model may choose."""

    steps: int
    guidance: float
    solver: SolverName
    negative: str
    """What the images should not show."""
    size: Size
    """Width and height in pixels; by default those of the training."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A trained model with its encoders. Call it with a prompt to get an image."""

    generate: ImageGenerator
    sampling: SamplingSettings
    """How it samples where a call does not say: as evaluate does, or as it was distilled."""

    @overload
    def __call__(self, prompts: str, seed: int = 0, **choices: Unpack[Choices]) -> Image.Image: ...
    @overload
    def __call__(
        self, prompts: list[str] | tuple[str, ...], seed: int = 0, **choices: Unpack[Choices]
    ) -> list[Image.Image]: ...
    def __call__(
        self, prompts: str | list[str] | tuple[str, ...], seed: int = 0, **choices: Unpack[Choices]
    ) -> Image.Image | list[Image.Image]:
        """Generate an image of a prompt; or of several prompts a list, whose image i uses seed + i.

        `choices` are steps, guidance, solver, negative (what the images should not show) and size
        (width and height in pixels). An image depends on its prompt, its seed and these alone, to
        the bit.

        Raises:
            ValidationError: steps, guidance or solver are out of bounds.
            SizeError: the model cannot generate this size.
        """
        captions = [prompts] if isinstance(prompts, str) else list(prompts)
        if not captions:
            return []
        negative, size = choices.pop("negative", ""), choices.pop("size", None)
        sampling = TypeAdapter(SamplingSettings).validate_python(
            {**asdict(self.sampling), **choices}
        )
        seeds = range(seed, seed + len(captions))
        pixels = self.generate(captions, seeds, sampling, negative, size)
        images = [Image.fromarray(image) for image in pixels]
        return images[0] if isinstance(prompts, str) else images


def load_model(
    config: str | Path,
    overrides: Sequence[str] = (),
    *,
    model: str | Path | None = None,
    device: str = "auto",
) -> TrainedModel:
    """The model that a run has trained, or distilled with evaluate.model=distilled; or `model`, a
    denoiser.safetensors or its folder, with the encoders of the config.

    `config` is a YAML file or the name of a shipped one, `overrides` are as on the command line.

    Raises:
        ConfigError: the config is invalid; the message lists all problems.
        MissingOutput: no model has been trained with these settings.
        CheckpointError: the model cannot be read, or needs other encoders.
        EncoderError: an encoder cannot be loaded.
    """
    settings = load_config(Path(config), overrides)
    source = _source_of_file(Path(model), settings) if model else _source_of_run(settings)
    return TrainedModel(source.load(device), source.sampling(settings.evaluate.sampling))


def training_curves(model: Manifest) -> dict[str, Points]:
    """What a training, whose output `model` is, has logged: name -> (step, value), in order."""
    from pipeline.evaluate.training_history import logged_metrics

    return logged_metrics(model.file(EVENTS_FILE))


@dataclass(frozen=True, slots=True)
class OpenEncodings:
    """The encodings of a run, memory-mapped, and their split."""

    manifest: Manifest
    """With the folder of the encodings, whose shards pandas and numpy read too."""
    pairs: EncodedDataset
    """pairs.batch(numbers) has scaled latents [b, c, z, z] and text, float32."""
    split: Split
    """The numbers of the pairs for training and of the held-out ones."""


def open_encodings(config: str | Path, overrides: Sequence[str] = ()) -> OpenEncodings:
    """The encodings of a run, of its last phase if it has phases, with text in the form that its
    model takes. Those of other phases in a mix are not among them; `phase=NAME` opens them.

    Raises:
        ConfigError: the config is invalid; the message lists all problems.
        MissingOutput: nothing has been encoded with these settings.
        EncodingsError: a file of the encodings is damaged.
    """
    from pipeline.dataset.encoded_dataset import open_dataset
    from pipeline.dataset.split import split_pairs

    settings = load_config(Path(config), overrides)
    (encodings,) = _outputs(settings, "encode")
    split = split_pairs(encodings, settings.train.held_out_fraction)
    return OpenEncodings(encodings, open_dataset(encodings, settings.model.text), split)


def _source_of_file(path: Path, settings: RunConfig) -> ModelSource:
    encode = settings.encode
    return ModelSource(model_file(path), encode.vae, encode.text_model, path.name)


def _source_of_run(settings: RunConfig) -> ModelSource:
    encodings, model = _outputs(settings, "encode", settings.model_stage)
    return source_of_run(settings.name, encodings, model, settings.evaluate.ema)


def _outputs(settings: RunConfig, *stages: str) -> list[Manifest]:
    """The finished outputs of stages of a run."""
    statuses = stage_statuses(RunInputs(settings))
    if missing := [stage for stage in stages if statuses[stage].manifest is None]:
        raise MissingOutput(
            f"the {missing[-1]} stage of {settings.name!r} has no output with these settings in "
            f"{settings.folder.absolute()}; make it with `tld run CONFIG --until {missing[-1]}`"
        )
    return [manifest for stage in stages if (manifest := statuses[stage].manifest)]
