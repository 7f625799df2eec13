"""The demos of shapes as they are shipped: every prompt of the documentation is drawn, and graded.
That of short prompts is trained for a sixteenth of its steps, with bars to match; BENCHMARKS.md has
the whole training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from data_catalog.figures import ReportFigures
from data_catalog.shapes.dataset import parse_caption
from data_catalog.storage.manifest import Manifest
from pipeline.config.run import RunConfig
from pipeline.generate.model_source import source_of_run
from pipeline.scoring.prompt_accuracy import grade_images
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.documents import blocks, documents
from tests.support.finished import finish

SAMPLES = 8  # of each prompt
QUOTED = re.compile(r'"(an? [^"]+)"')
OF_OTHER_MODELS = {"a cute grey owl", "a prompt", "a red barn in the snow"}


def documented_prompts() -> dict[bool, list[str]]:
    """What stands in quotes in code of README.md and docs, and reads like a caption of the demos:
    whether it says all -> prompts."""
    code = "\n".join(
        block
        for text in documents().values()
        for block in blocks(text, "sh", "bash", "shell", "console", "python", "json", "")
    )
    prompts = sorted(set(QUOTED.findall(code)) - OF_OTHER_MODELS)
    described = {prompt: parse_caption(prompt) for prompt in prompts}
    assert [prompt for prompt, description in described.items() if description is None] == []
    return {
        is_full: [p for p, d in described.items() if d and (not d.left_open) is is_full]
        for is_full in (True, False)
    }


def test_documented_prompts_are_captions_of_the_data_set() -> None:
    prompts = documented_prompts()
    assert len(prompts[True]) >= 10
    assert len(prompts[False]) >= 2


def manifest_of(run: RunConfig, stage: str) -> Manifest:
    manifest = stage_statuses(RunInputs(run))[stage].manifest
    assert manifest
    return manifest


def shares_right(run: RunConfig, prompts: Sequence[str]) -> dict[str, float]:
    """Prompt -> the share of its samples that show what it says."""
    encodings, model = manifest_of(run, "encode"), manifest_of(run, "train")
    generate = source_of_run(run.name, encodings, model, 0).load("cpu")
    asked = list(product(prompts, range(SAMPLES)))
    images = generate(
        [prompt for prompt, _ in asked], [seed for _, seed in asked], run.evaluate.sampling
    )
    right = grade_images(images, [prompt for prompt, _ in asked]).all_correct
    assert right is not None
    shares = right.view(len(prompts), SAMPLES).double().mean(1).tolist()
    return dict(zip(prompts, shares, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_draws_every_full_prompt_of_the_documentation(tmp_path: Path) -> None:
    demo = finish([f"root={tmp_path}"])
    scores = ReportFigures.of(manifest_of(demo, "evaluate")).scores
    assert scores["prompt_accuracy"] >= 0.96
    assert "open_attribute_diversity" not in scores, "its captions leave nothing open"
    shares = shares_right(demo, documented_prompts()[True])
    assert np.mean(list(shares.values())) >= 0.95, shares
    assert min(shares.values()) >= 0.75, shares


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_of_short_prompts_draws_those_too_and_varies_what_they_leave_open(
    tmp_path: Path,
) -> None:
    run = finish([f"root={tmp_path}", "train.steps=1500"], Path("short-prompts"))
    scores = ReportFigures.of(manifest_of(run, "evaluate")).scores
    assert scores["prompt_accuracy/full"] >= 0.93
    assert scores["prompt_accuracy/partial"] >= 0.6
    assert scores["reference/prompt_accuracy"] >= 0.99
    assert 0.45 <= scores["open_attribute_diversity"] <= 1.15
    shares = shares_right(run, documented_prompts()[False])
    assert np.mean(list(shares.values())) >= 0.5, shares
