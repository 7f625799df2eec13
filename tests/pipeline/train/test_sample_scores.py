"""Scores during training are those that a report gives of the same model and samples."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from data_catalog.figures import EncodingsFigures
from data_catalog.storage.workspace import Workspace
from pipeline.compute.inference import inference_on
from pipeline.config.run import RunConfig
from pipeline.config.score import ScoreConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.split import split_pairs
from pipeline.evaluate.held_out_samples import load_models
from pipeline.evaluate.stage import evaluate
from pipeline.held_out.samples import load_scorers, select_held_out
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.train.sample_scores import SAMPLING, SampleScorer
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace

PROMPTS = 50  # as many as distances need


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    root = tmp_path_factory.mktemp("scored") / "data"
    return make_workspace(root, (64, 64), evaluate__prompts=PROMPTS)


def scorer_of(config: RunConfig, score: ScoreConfig) -> SampleScorer:
    statuses = stage_statuses(RunInputs(config))
    encodings, model = statuses["encode"].manifest, statuses["train"].manifest
    assert encodings
    assert model
    loaded = load_models(encodings, model, config.evaluate)
    encoders, features = EncodingsFigures.of(encodings).encoders, score.features or ()
    models = load_scorers(loaded.denoiser, loaded.codec, inference_on("cpu"), encoders, features)
    split = split_pairs(encodings, config.train.held_out_fraction)
    held_out = select_held_out(
        open_dataset(encodings), split.held_out[:PROMPTS], split.held_out_captions[:PROMPTS]
    )
    workspace = Workspace(config.folder)
    return SampleScorer(score, held_out, encodings, models.inference, models, workspace)


@pytest.mark.slow
def test_a_scoring_gives_the_values_of_the_report(config: RunConfig) -> None:
    scorer = scorer_of(config, ScoreConfig(every=1, prompts=PROMPTS, features=("clip",)))
    assert scorer.models
    track = RememberingTracker()
    values = scorer.scores(scorer.models.denoiser, track)
    changed = {"steps": SAMPLING.steps, "guidance": SAMPLING.guidance, "solver": SAMPLING.solver}
    statuses = stage_statuses(RunInputs(config))
    encodings, model = statuses["encode"].manifest, statuses["train"].manifest
    assert encodings
    assert model
    out = config.folder / "04_report/other"
    out.mkdir(parents=True)
    report = evaluate(
        encodings, model, config.evaluate.model_copy(update=changed), out, RememberingTracker()
    ).figures["scores"]
    assert {"clip_score", "cmmd", "frechet_distance", "prompt_accuracy", "accuracy/size"} <= {
        *values
    }
    assert not {name for name in values if "reference" in name or "diversity" in name}
    assert values == pytest.approx({name: report[name] for name in values}, rel=1e-6)
    assert track.shown[0] == (0, PROMPTS, "samples")


def test_without_features_only_captions_and_the_grader_score(config: RunConfig) -> None:
    scorer = scorer_of(config, ScoreConfig(every=1, prompts=PROMPTS, features=()))
    few = replace(
        scorer,
        held_out=select_held_out(
            scorer.held_out.pairs, scorer.held_out.numbers[:4], scorer.held_out.captions[:4]
        ),
    )
    assert few.models
    track = RememberingTracker()
    scores = partial(few.scores, few.models.denoiser, track)
    values = scores()
    assert {"clip_score", "prompt_accuracy"} <= {*values}
    assert not {name for name in values if "distance" in name or name == "cmmd"}
    assert scores() == values, "the noise is the same at every step"
    assert replace(few, models=None).scores(few.models.denoiser, track) == {}
