"""Model card of the service: what the model is, what it was trained on, and its scores."""

from __future__ import annotations

from pydantic import BaseModel

from data_catalog.figures import EncodingsFigures, ModelFigures, ReportFigures
from data_catalog.redaction import public_name
from data_catalog.scores import is_part
from data_catalog.sources import known_sources
from data_catalog.storage.manifest import Manifest
from pipeline.config.run import RunConfig


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
    example: str
    """Example prompt."""


def run_card(
    config: RunConfig, encodings: Manifest, model: Manifest, report: Manifest | None
) -> Card:
    """The card of a finished run."""
    encoded, figures = EncodingsFigures.of(encodings), ModelFigures.of(model)
    source = known_sources().get(config.download.source or "")
    built_in = config.download.urls == "shapes"
    data: dict[str, int | str] = {
        "table": public_name(config.download.place),
        "pairs": encodings.rows,
    }
    if source:
        data |= {"source": source.name, "licence": source.licence}
    return Card(
        name=config.name,
        model={
            "parameters": figures.parameters,
            "layers": config.model.layers,
            "width": config.model.width,
            "latents": "×".join(map(str, encoded.latent_shape)),
            "training steps": figures.steps,
            "training pairs": figures.train_pairs,
            "made": model.made_at[:10],
            "fingerprint": model.fingerprint[:12],
        },
        data=data,
        encoders={
            "vae": public_name(encoded.encoders.vae),
            "text encoder" if encoded.encoders.text else "clip": public_name(
                encoded.encoders.text_model
            ),
        },
        sampling={
            "solver": config.evaluate.solver,
            "steps": config.evaluate.steps,
            "guidance": config.evaluate.guidance,
        },
        scores=_scores(ReportFigures.of(report).scores) if report else {},
        edge=config.download.image_size,
        example="a small red star in the top left on a blue background" if built_in else "",
    )


def _scores(scores: dict[str, float]) -> dict[str, float]:
    """The aggregate scores, without those of single attributes or noise levels."""
    return {name: value for name, value in scores.items() if not is_part(name)}
