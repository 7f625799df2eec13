"""A run whose captions a language model encodes, without CLIP, from encodings to samples."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from data_catalog.encodings import read_rows
from data_catalog.figures import EncodingsFigures, ReportFigures
from data_catalog.scores import missing_without_clip, score_of
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.evaluate.stage import evaluate
from pipeline.generate.model_source import ModelSource, source_of_run
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from tests.support.feature_networks import save_dinov2
from tests.support.text_encoders import save_decoder, save_t5
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace
from tld_model.checkpoint import CheckpointError


def test_samples_use_what_training_used_and_scores_do_without_clip(
    tmp_path: Path, track: RememberingTracker
) -> None:
    name = save_decoder(tmp_path / "model")
    config = make_workspace(
        tmp_path / "data",
        (64, 64),
        encode__text_encoder=name,
        encode__clip="null",
        encode__text="tokens",
        encode__text_layer=-2,
        encode__text_tokens=24,
        encode__text_template="'an image: {}'",
        model__text="tokens",
        model__text_dim=48,
        evaluate__prompts=50,
        evaluate__features=f"[clip,'dinov2:{save_dinov2(tmp_path / 'dinov2')}']",
    )
    statuses = stage_statuses(RunInputs(config))
    encodings, model = statuses["encode"].manifest, statuses["train"].manifest
    assert encodings
    assert model

    source = source_of_run("mine", encodings, model, 0)
    generate = source.load("cpu")
    recipe = generate.text_encoder.recipe
    assert (recipe.layer, recipe.limit, recipe.template) == (2, 24, "an image: {}")
    rows = read_rows(encodings.folder, "00000", ["caption"])
    stored = open_dataset(encodings, "tokens").batch(np.arange(6)).text
    text = generate.text(rows["caption"].to_pylist()[:6])[:, : stored.shape[1]]
    statistics = EncodingsFigures.of(encodings).token_statistics
    assert statistics
    assert float((text - stored).square().mean().sqrt()) < 2 * statistics.rmse
    assert torch.equal(text.any(dim=2), stored.any(dim=2))
    assert generate(["a small red star"]).shape == (1, 64, 64, 3)

    other = save_t5(tmp_path / "t5")
    with pytest.raises(CheckpointError, match=r"by text encoder .* but these are by"):
        ModelSource(source.denoiser, source.vae, other, "").load("cpu")

    work = partial(evaluate, encodings, model, config.evaluate, track=track)
    stage = RunInputs(config).stage_run("evaluate", {"encode": encodings, "train": model})
    scores = ReportFigures.of(run_stage(stage, track, work)).scores
    assert {"prompt_accuracy", "held_out_loss"} <= scores.keys()
    assert not [score for score in scores if score_of(score).needs_clip]
    assert {"cmmd/dinov2", "frechet_distance/dinov2", "diversity/dinov2"} < scores.keys()
    (warning,) = [text for text in track.warnings if "encode.clip is null" in text]
    assert warning.endswith(f"left out: {', '.join(missing_without_clip(['clip', 'dinov2']))}")
    assert "clip_score" in warning
