"""Model card of a trained model, in the format of the Hugging Face hub.

The card is YAML metadata followed by Markdown, as huggingface_hub's ModelCard reads it. It may be
published, so it shows only the last part of a path or URL.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from data_catalog.figures import EncodingsFigures, ModelFigures, ReportFigures
from data_catalog.redaction import public_name
from data_catalog.row_counts import account_rows
from data_catalog.scores import Score, no_interval, whole_scores
from data_catalog.sources import Source, known_sources
from data_catalog.storage.lineage import ancestors
from data_catalog.storage.manifest import Manifest
from pipeline.reporting.render import render_page
from tld_model.config import DenoiserConfig

CARD_FILE = "README.md"
UNKNOWN_LICENSE = "unknown"
_TAGS = ["text-to-image", "latent-diffusion", "diffusion-transformer", "rectified-flow"]
_HUB_DATASETS = "https://huggingface.co/datasets/"
# Training settings that matter most to a reader.
_SHOWN_SETTINGS = (
    *(
        "steps",
        "batch_size",
        "optimizer",
        "lr",
        "lr_schedule",
        "decay_steps",
        "warmup_steps",
        "weight_decay",
        "ema_decay",
    ),
    *(
        "condition_dropout",
        "noise_levels",
        "noise_alpha",
        "noise_beta",
        "noise_location",
        "noise_scale",
        "noise_shift",
    ),
    *("loss_weight", "max_loss_weight", "contrastive", "precision"),
    *("init_from", "continue_from", "seed"),
)


@dataclass(frozen=True, slots=True)
class Usage:
    """How to use the model: the library's name on the hub, its requirements, Python code, and under
    which licence, as the hub calls it."""

    library: str
    needs: str
    code: str
    license: str = UNKNOWN_LICENSE


OWN_USAGE = Usage(
    "tld",
    "With the project that trained it, and its MLflow:",
    "import mlflow\nimport pandas as pd\n\n"
    'model = mlflow.pyfunc.load_model("models:/…")  # the registered name\n'
    'prompts = pd.DataFrame({"prompt": ["what the image shows"]})\n'
    "images = model.predict(prompts)  # uint8 [n, h, w, 3]",
)


@dataclass(frozen=True, slots=True)
class _ScoreRow:
    """A row of the evaluation table."""

    score: Score
    value: float
    interval: tuple[float, float] | None


def model_card(
    encodings: Manifest,
    model: Manifest,
    report: Manifest | None,
    name: str,
    *,
    source: str | None = None,
    usage: Usage = OWN_USAGE,
) -> str:
    """Card of a trained model, with the scores of its report if there is one.

    `source` is the catalog's name of the data set that the model was trained on, if it is listed.
    """
    lineage = [*ancestors(encodings, model), *([report] if report else [])]
    images = next((manifest for manifest in lineage if manifest.stage == "download"), None)
    data, scores = known_sources().get(source or ""), list(_scores(report))
    training, figures, encoded = (
        model.settings,
        ModelFigures.of(model),
        EncodingsFigures.of(encodings),
    )
    return render_page(
        "model_card.md.j2",
        front=_as_yaml(_front(name, data, scores, usage)),
        name=name,
        usage=usage,
        model=model,
        figures=figures,
        parameters=figures.parameters,
        shape=training["model"],
        distill=training.get("distill"),
        encodings=encodings,
        report=report,
        source=data,
        scores=scores,
        no_interval=no_interval,
        encoders={
            "vae": public_name(encoded.encoders.vae),
            "text": public_name(encoded.encoders.text_model),
            "clip": public_name(encoded.encoders.clip or ""),
        },
        image_size=images.settings["image_size"] if images else None,
        split_column=images.settings.get("split_column") if images else None,
        account=account_rows(encoded.account),
        epochs=training["steps"] * training["batch_size"] / max(1, figures.train_pairs),
        settings=[
            (key, _as_text(training[key]))
            for key in _SHOWN_SETTINGS
            if training.get(key) is not None
        ],
        lineage=lineage,
    )


def card_of_weights(
    shape: DenoiserConfig, parameters: int, encoders: Mapping[str, str], name: str, usage: Usage
) -> str:
    """Card of a denoiser without history, such as an imported one.

    `encoders` has the keys vae and text.
    """
    return render_page(
        "model_card.md.j2",
        front=_as_yaml(_front(name, None, [], usage)),
        name=name,
        usage=usage,
        model=None,
        parameters=parameters,
        shape=shape.model_dump(mode="json"),
        encoders={kind: public_name(encoder) for kind, encoder in encoders.items()},
        image_size=None,
    )


def _front(
    name: str, source: Source | None, scores: list[_ScoreRow], usage: Usage
) -> dict[str, Any]:
    """The card's metadata. The owner of the weights chooses their licence."""
    front: dict[str, Any] = {
        "license": usage.license,
        "library_name": usage.library,
        "pipeline_tag": "text-to-image",
        "tags": _TAGS,
    }
    if source and source.homepage.startswith(_HUB_DATASETS):
        front["datasets"] = [source.homepage.removeprefix(_HUB_DATASETS)]
    metrics = [
        {"type": row.score.name, "value": row.value, "name": row.score.meaning}
        for row in scores
        if row.score.of_model
    ]
    if metrics:
        dataset = source.name if source else "own-table"
        result = {
            "task": {"type": "text-to-image"},
            "dataset": {
                "type": dataset,
                "name": f"held-out pairs of {dataset}",
                "split": "held_out",
            },
            "metrics": metrics,
        }
        front["model-index"] = [{"name": name, "results": [result]}]
    return front


def _as_yaml(front: dict[str, Any]) -> str:
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=120)


def _scores(report: Manifest | None) -> Iterator[_ScoreRow]:
    """Scores in the order of the report's page, without those that are not finite."""
    figures = ReportFigures.of(report) if report else ReportFigures(scores={})
    for score in whole_scores(figures.scores):
        value = figures.scores[score.name]
        if math.isfinite(value):
            yield _ScoreRow(score, value, figures.intervals.get(score.name))


def _as_text(setting: Any) -> str:
    if isinstance(setting, list):
        return ", ".join(map(str, setting))
    return public_name(setting) if isinstance(setting, str) else str(setting)
