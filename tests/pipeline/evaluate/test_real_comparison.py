"""Samples beside real images, in a run of the four stages on images of three styles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_catalog.scores import score_of
from data_catalog.storage.workspace import Workspace
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.split import split_pairs
from pipeline.evaluate.held_out_samples import load_models
from pipeline.evaluate.real_comparison import compare_with_real
from pipeline.held_out.real_images import Numbers, RealImages
from pipeline.preflight.check import check_run
from pipeline.scoring.bootstrap import caption_groups
from pipeline.scoring.image_scores import ImageScores, estimate_scores
from pipeline.scoring.prompt_accuracy import GradedImages
from tests.support.finished import finish
from tests.support.small import TINY, small
from tests.support.styles import write_styles
from tests.support.tracker import RememberingTracker
from tests.support.workspace import output

CONCEPTS = 60


def settings(root: Path, images: Path, **changed: object) -> list[str]:
    own: dict[str, object] = {
        "download__urls": "null",
        "download__images": images,
        "download__limit": "null",
        "download__shard_size": 100,
        "download__split_column": "split",
        "download__keep_columns": "[concept, style]",
        "evaluate__concept_column": "concept",
        "evaluate__style_column": "style",
        "evaluate__device": "cpu",
    }
    return small(root, **{**own, **changed})


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("styles")
    as_in_training = {"evaluate__steps": 20, "evaluate__guidance": 3, "evaluate__ema": "best"}
    scores = {"train__score__every": 6, "train__score__best_by": "retrieval_at_5"}
    tars = write_styles(folder / "tars", CONCEPTS)
    return finish(settings(folder / "data", tars, **as_in_training, **scores))


@pytest.fixture(scope="module")
def real_images(config: RunConfig) -> RealImages:
    encodings = output(config, "encode")
    models = load_models(encodings, output(config, "train"), config.evaluate)
    workspace = Workspace(config.folder)
    return RealImages(models, open_dataset(encodings), encodings, 16, workspace)


def scored(real_images: RealImages, numbers: Numbers) -> ImageScores:
    """Real images in the place of samples."""
    network = real_images.network
    return ImageScores(
        {network.name: network.embed(real_images.images(numbers), 16)}, None, GradedImages({}, {})
    )


@pytest.mark.slow
def test_the_scores_and_the_page_come_of_a_run(config: RunConfig) -> None:
    report = output(config, "evaluate")
    scores = json.loads(report.file("metrics.json").read_text())
    for name in ("retrieval_at_1", "reference/retrieval_at_1"):
        assert scores[name]["n"] == 12
        assert 0 <= scores[name]["value"] <= scores[name.replace("1", "5")]["value"] <= 1
    best = output(config, "train").figures["best"]
    assert best["score"] == "retrieval_at_5"
    assert scores["retrieval_at_5"]["value"] == best["value"], "training computes the same"
    page = report.file("report.html").read_text()
    for text in ("Nearest training images", "Retrieval of the concept", "of 60", "“thing"):
        assert text in page
    assert "chosen at random" not in page, "all 168 are compared"


@pytest.mark.slow
def test_true_images_are_found_and_training_images_are_recognised(
    config: RunConfig, real_images: RealImages
) -> None:
    """The real images in the place of samples: each finds itself, and no other style is needed."""
    encodings = real_images.encodings
    split = split_pairs(encodings, 0)
    assert len(split.held_out) == 12
    track = RememberingTracker()
    true = scored(real_images, split.held_out)
    compared = compare_with_real(real_images, split, true, true, config.evaluate, track)
    assert compared.retrieval
    assert compared.retrieval.ranks.tolist() == [0] * 12
    assert compared.retrieval.nearest.tolist() == split.held_out.tolist()
    assert compared.retrieval.candidates.tolist() == [CONCEPTS] * 12
    assert compared.nearest.sample_median == pytest.approx(compared.nearest.real_median)
    assert compared.nearest.real_median < 0.9999

    memorised = scored(real_images, split.train[:12])
    compared = compare_with_real(real_images, split, memorised, true, config.evaluate, track)
    assert compared.nearest.of_samples.cosine == pytest.approx(np.ones(12), abs=1e-5)
    near = compared.nearest.numbers[compared.nearest.of_samples.index]
    assert real_images.captions(near) == real_images.captions(split.train[:12])
    assert not track.warnings


@pytest.mark.slow
def test_training_images_take_the_place_of_the_samples(
    config: RunConfig, real_images: RealImages
) -> None:
    """Training images in the place of the samples, as many, chosen in random order."""
    captions = [str(number // 2) for number in range(60)]  # two images share each
    split = replace(split_pairs(real_images.encodings, 0), held_out_captions=captions)
    train, track = split.train, RememberingTracker()
    first, second = scored(real_images, train[:60]), scored(real_images, train[60:120])
    compared = compare_with_real(real_images, split, first, second, config.evaluate, track)
    estimates = compared.estimates(captions)

    order = np.random.default_rng(0).permutation(len(train))[:60]
    chosen = scored(real_images, train[order])
    expected = estimate_scores(chosen, second, caption_groups(captions))
    distances = {name for name in expected if score_of(name).is_distance}
    assert distances == {"cmmd", "kernel_distance", "frechet_distance"}
    for name in distances:
        score, wanted = estimates[f"reference/{name}"], expected[name]
        assert score.value == pytest.approx(wanted.value, rel=1e-3)
        assert score.interval == pytest.approx(wanted.interval, rel=1e-2)

    many = scored(real_images, np.concatenate([train, train[:1]]))
    compared = compare_with_real(real_images, split, many, many, config.evaluate, track)
    assert compared.distances == {}, "fewer training images than samples"


def test_what_cannot_be_searched_is_said_before_the_run(tmp_path: Path) -> None:
    images = write_styles(tmp_path / "tars", 5)

    def problems(**changed: object) -> str:
        with pytest.raises(ConfigError) as refused:
            check_run(load_config(TINY, settings(tmp_path / "data", images, **changed)))
        return str(refused.value)

    assert "set download.keep_columns=[style, concept]" in problems(
        download__keep_columns="[style]"
    )
    assert "has a text in 'family'" in problems(
        download__keep_columns="[concept, style, family]", evaluate__style_column="family"
    )
    assert "needs evaluate.concept_column" in problems(
        evaluate__concept_column="null",
        evaluate__style_column="null",
        evaluate__require="{retrieval_at_1: 0.5}",
    )
    with pytest.raises(ConfigError, match="concept_column and style_column need each other"):
        load_config(TINY, settings(tmp_path / "data", images, evaluate__style_column="null"))
    check_run(load_config(TINY, settings(tmp_path / "data", images)))


@pytest.mark.slow
def test_shown_samples_without_a_concept_are_not_beside_real_images(
    config: RunConfig, real_images: RealImages
) -> None:
    split, track = split_pairs(real_images.encodings, 0), RememberingTracker()
    captions, samples = split.held_out_captions, scored(real_images, split.held_out)
    compared = compare_with_real(real_images, split, samples, samples, config.evaluate, track)
    assert compared.retrieval
    last = replace(compared.retrieval, positions=compared.retrieval.positions + 1)
    images = real_images.images(split.held_out)
    without_the_first = replace(compared, retrieval=last)
    assert without_the_first.retrieval_tiles(images, captions, [0]) == []
    assert len(without_the_first.retrieval_tiles(images, captions, [0, 1])) == 1


@pytest.mark.slow
def test_one_style_has_no_ceiling_and_says_so(config: RunConfig, real_images: RealImages) -> None:
    split, track = split_pairs(real_images.encodings, 0), RememberingTracker()
    samples = scored(real_images, split.held_out)
    one = config.evaluate.model_copy(update={"concept_column": "style", "style_column": "concept"})
    swapped = compare_with_real(real_images, split, samples, samples, one, track)
    assert swapped.retrieval
    assert set(swapped.retrieval.candidates) == {3}
    unlike = config.evaluate.model_copy(update={"concept_column": "url", "style_column": "style"})
    alone = compare_with_real(real_images, split, samples, samples, unlike, track)
    assert set(alone.estimates(split.held_out_captions)) == {"retrieval_at_1", "retrieval_at_5"}
    assert len(track.warnings) == 1
    assert "no reference/retrieval_at_1" in track.warnings[0]
