"""Model card of the service: what the model is, what it was trained on, and its scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from data_catalog.encodings import EncodingsError
from data_catalog.figures import EncodingsFigures, ModelFigures, ReportFigures
from data_catalog.redaction import public_name
from data_catalog.scores import is_part
from data_catalog.shapes.dataset import parse_caption
from data_catalog.sources import known_sources
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.object_access import ObjectStorageError
from pipeline.config.run import RunConfig
from pipeline.dataset.training_captions import training_captions
from pipeline.generate.model_source import ModelSource
from tld_model.config import SamplingSettings

if TYPE_CHECKING:
    from pipeline.generate.generator import ImageGenerator

_EXAMPLES = 64
_STAR = "a small red star in the top left on a blue background"


@dataclass(frozen=True, slots=True)
class ModelToServe:
    """A model, and the outputs of a run that say what it is."""

    source: ModelSource
    encodings: Manifest | None  # of the config, whose captions are examples
    model: Manifest | None = None  # None if the model is not that of the run
    report: Manifest | None = None
    shows_captions: bool = True
    """Whether captions of the training data are examples."""


class Card(BaseModel):
    """Facts about the model, for the page and for programs."""

    name: str
    model: dict[str, int | str]
    data: dict[str, int | str]
    encoders: dict[str, str]
    sampling: dict[str, int | float | str]
    """Sampling settings that apply where a request sets none."""
    scores: dict[str, float]
    """Scores of the run's evaluation; empty if it has not been evaluated."""
    edge: int
    """Height and width of its images, in pixels."""
    multiple: int
    """Heights and widths of other sizes are multiples of this, in pixels."""
    example: str
    """Example prompt."""
    examples: list[str] = []
    """Captions of the training data, as examples of prompts, if the service shows them."""


def model_card(
    config: RunConfig, served: ModelToServe, generator: ImageGenerator, own: SamplingSettings
) -> Card:
    """The card of a loaded model, with what its run says of it. `own` are the sampling settings
    that apply where a request sets none."""
    built_in = config.download.urls == "shapes"
    shown = served.encodings if served.shows_captions else None
    examples = _examples(config, shown, built_in=built_in)
    shape, denoiser = generator.denoiser.config, generator.denoiser
    card = Card(
        name=config.name,
        model={
            "parameters": sum(weight.numel() for weight in denoiser.parameters()),
            "layers": shape.layers,
            "width": shape.width,
            "latents": f"{shape.latent_channels}×{shape.latent_size}×{shape.latent_size}",
            "source": public_name(served.source.source),
        },
        data={},
        encoders={
            "vae": public_name(served.source.vae),
            "text encoder": public_name(served.source.text_model),
        },
        sampling={"solver": own.solver, "steps": own.steps, "guidance": own.guidance},
        scores={},
        edge=shape.latent_size * generator.codec.downscale,
        multiple=generator.codec.downscale * shape.patch_size,
        example=_STAR if built_in else next(iter(examples), ""),
        examples=examples,
    )
    return card.model_copy(update=_facts_of_run(config, served, card))


def _facts_of_run(config: RunConfig, served: ModelToServe, card: Card) -> dict[str, Any]:
    """What the outputs of a run say of its model; nothing if the model is not that of the run."""
    if not served.model or not served.encodings:
        return {}
    encoded, figures = EncodingsFigures.of(served.encodings), ModelFigures.of(served.model)
    source = known_sources().get(config.download.source or "")
    data: dict[str, int | str] = {
        "table": public_name(config.download.place),
        "pairs": served.encodings.rows,
    }
    if source:
        data |= {"source": source.name, "licence": source.licence}
    kind = "text encoder" if encoded.encoders.text else "clip"
    return {
        "model": {name: value for name, value in card.model.items() if name != "source"}
        | {
            "training steps": figures.steps,
            "training pairs": figures.train_pairs,
            "made": served.model.made_at[:10],
            "fingerprint": served.model.fingerprint[:12],
        },
        "data": data,
        "encoders": {"vae": card.encoders["vae"], kind: card.encoders["text encoder"]},
        "scores": _scores(ReportFigures.of(served.report).scores) if served.report else {},
    }


def _examples(config: RunConfig, encodings: Manifest | None, *, built_in: bool) -> list[str]:
    """Captions that training saw. Those of shapes say all: models understand these best."""

    def is_full(caption: str) -> bool:
        described = parse_caption(caption)
        return described is not None and not described.left_open

    if encodings is None:
        return []
    fraction = config.train.held_out_fraction
    chosen = (is_full,) if built_in else ()
    try:
        return training_captions(encodings, fraction, _EXAMPLES, *chosen)
    except (EncodingsError, OSError, ObjectStorageError):
        return []  # the model can be served without them


def _scores(scores: dict[str, float]) -> dict[str, float]:
    """The aggregate scores, without those of single attributes or noise levels."""
    return {name: value for name, value in scores.items() if not is_part(name)}
