"""The model card: what it tells, and that huggingface_hub reads it as one."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCard

from data_catalog.redaction import public_name
from data_catalog.storage.manifest import Manifest
from pipeline.export.model_card import Usage, model_card
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.workspace import make_workspace


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    statuses = stage_statuses(RunInputs(make_workspace(tmp_path_factory.mktemp("card") / "data")))
    encodings, model = statuses["encode"].manifest, statuses["train"].manifest
    assert encodings
    assert model
    return encodings, model


@pytest.fixture(scope="module")
def report(trained: tuple[Manifest, Manifest]) -> Manifest:
    """As evaluate leaves it; made up, since what it takes is a model that has learned."""
    figures = {
        "scores": {
            "clip_score": 93.5,
            "clip_score_reference": 94,
            "cmmd": 0.0123,
            "held_out_loss": 0.04,
            "frechet_distance": float("nan"),
        },
        "intervals": {"clip_score": [93.1, 93.9], "cmmd": [0.01, 0.015]},
    }
    settings = {"steps": 20, "guidance": 2.0, "seed": 0, "solver": "heun"}
    changed = {
        "stage": "evaluate",
        "rows": 512,
        "figures": figures,
        "settings": settings,
        "made_by": "run-of-evaluate",
    }
    return trained[1].model_copy(update=changed)


def test_the_hub_reads_it(trained: tuple[Manifest, Manifest], report: Manifest) -> None:
    text = model_card(*trained, report, "my-model", source="laion-art")
    assert text.startswith("---\n")
    card = ModelCard(text)
    metadata = card.data.to_dict()
    assert metadata["license"] == "unknown"
    assert metadata["pipeline_tag"] == "text-to-image"
    assert metadata["datasets"] == ["laion/laion-art"]
    assert card.data["model_name"] == "my-model"
    results: list[EvalResult] = card.data["eval_results"]
    values = {result.metric_type: result.metric_value for result in results}
    assert values == {
        "clip_score": 93.5,
        "cmmd": 0.0123,
        "held_out_loss": 0.04,
    }  # of the model, where it is a number
    assert {result.dataset_split for result in results} == {"held_out"}


def test_it_names_the_sets_of_a_mix_with_their_shares(trained: tuple[Manifest, Manifest]) -> None:
    encodings, model = trained
    mix = {
        "first": {"share": 0.3, "train_pairs": 1200, "drawn_pairs": 600},
        "fine": {"share": 0.7, "train_pairs": 40, "drawn_pairs": 1400},
    }
    mixed = model.model_copy(update={"figures": {**model.figures, "mix": mix}})
    text = model_card(encodings, mixed, None, "my-model")
    assert "| `first` | 0.3 | 1,200 | 0.5 |\n| `fine` | 0.7 | 40 | 35 |\n\n## Training" in text
    assert "passes over the data" not in text
    plain = model_card(encodings, model, None, "my-model")
    assert "passes over the data" in plain
    assert "several phases" not in plain


def test_it_says_what_was_made_from_what(
    trained: tuple[Manifest, Manifest], report: Manifest
) -> None:
    encodings, model = trained
    text = model_card(encodings, model, report, "my-model")
    assert f"{model.figures['train_pairs']} pairs of image and caption" in text
    assert "images of 64×64 pixels" in text
    for stage in ("download", "encode", "train", "evaluate"):
        assert f"`run-of-{stage}`" in text
    assert encodings.parents["download"] in text
    assert model.digest in text
    assert "| `clip_score` | 93.5 | 93.1 to 93.9 |" in text
    assert "| `held_out_loss` | 0.04 | < 20 captions |" in text
    assert "| `clip_score_reference` | 94 |" in text
    assert "20 steps of `heun` at guidance scale 2.0" in text
    assert "| `lr` | 0.001 |" in text
    assert "&#" not in text  # Markdown, not HTML


def test_it_names_the_scores_that_are_computed_with_clip(
    trained: tuple[Manifest, Manifest], report: Manifest
) -> None:
    def limits(*scores: str) -> str:
        figures = report.figures | {"scores": dict.fromkeys(scores, 1.0), "intervals": {}}
        text = model_card(*trained, report.model_copy(update={"figures": figures}), "my-model")
        return text.partition("## Limits\n")[2].partition("## Lineage")[0]

    assert "- `clip_score`, `cmmd`: computed with `shapes-clip`, which also" in limits(
        "clip_score", "cmmd", "fid", "kid"
    )
    assert "clip" not in limits("fid", "kid", "cmmd/inception", "held_out_loss")


def test_what_is_not_known_is_not_told(trained: tuple[Manifest, Manifest]) -> None:
    encodings, model = trained
    alone = encodings.model_copy(update={"parents": {"download": "elsewhere"}})
    text = model_card(alone, model, None, "my-model")
    assert "This model was not evaluated." in text
    assert "pixels" not in text.partition("## ")[0]
    metadata = ModelCard(text).data.to_dict()
    assert "model-index" not in metadata
    assert "datasets" not in metadata


def test_it_can_be_published(trained: tuple[Manifest, Manifest], tmp_path: Path) -> None:
    """No path of this machine is in it."""
    encodings, model = trained
    names = {"vae": str(tmp_path / "my-vae"), "clip": "openai/clip-vit-large-patch14"}
    figures = encodings.figures | {"encoders": encodings.figures["encoders"] | names}
    settings = model.settings | {"init_from": str(tmp_path / "base")}
    text = model_card(
        encodings.model_copy(update={"figures": figures}),
        model.model_copy(update={"settings": settings}),
        None,
        "m",
    )
    assert "`my-vae`" in text
    assert "| `init_from` | base |" in text
    assert "`openai/clip-vit-large-patch14`" in text
    assert str(tmp_path) not in text
    assert public_name("s3://bucket/a/table.csv?key=secret") == "table.csv"


def test_who_exports_says_how_to_use_it(trained: tuple[Manifest, Manifest]) -> None:
    card = ModelCard(
        model_card(
            *trained,
            None,
            "m",
            usage=Usage("diffusers", "With pip install diffusers:", "print('hello')"),
        )
    )
    assert card.data.to_dict()["library_name"] == "diffusers"
    assert "```python\nprint('hello')\n```" in card.text
    assert "With pip install diffusers:" in card.text


def test_a_phase_says_with_what_it_began(trained: tuple[Manifest, Manifest]) -> None:
    encodings, first = trained
    parents = {"encode": encodings.digest, "train": first.digest}
    changed = {"parents": parents, "fingerprint": "another", "digest": "of its weights"}
    says, before = "It began with the weights of the training before it", first.digest
    text = model_card(encodings, first.model_copy(update=changed), None, "m")
    assert says in text
    assert text.count(before) == text.count("`of its weights`") == 1
    assert says not in model_card(encodings, first, None, "m")
