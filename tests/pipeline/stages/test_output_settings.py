"""An upgrade makes no output stale: what an earlier version stored keeps its fingerprint, and so
does a run of a later version whose new settings stand at their defaults."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pydantic import Field

from pipeline.config.distill import DistillConfig
from pipeline.config.download import DownloadConfig
from pipeline.config.encode import EncodeConfig
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.run import RunConfig
from pipeline.config.train import TrainConfig
from pipeline.download.shard_recipe import recipe_of
from pipeline.encode.stage import _recipes
from pipeline.stages.dag import STAGES
from pipeline.stages.run_inputs import RunInputs
from tld_model.config import DenoiserConfig

STORED = json.loads(
    Path(__file__).with_name("stored_fingerprints.json").read_text(encoding="utf-8")
)
CONFIG = RunConfig.model_validate(STORED["run"])
PARENTS: Any = {name: SimpleNamespace(digest=f"digest of {name}") for name in STAGES}


class LaterDownload(DownloadConfig):
    more: int = 0


class LaterEncode(EncodeConfig):
    more: tuple[int, ...] = (1, 2)


class LaterModel(DenoiserConfig):
    more: str | None = None


class LaterTrain(TrainConfig):
    more: dict[str, float] = Field({})


class LaterDistill(DistillConfig):
    more: int = 3


class LaterEvaluate(EvaluateConfig):
    more: float = 0.5


LATER: dict[str, tuple[type[Any], object]] = {
    "download": (LaterDownload, 1),
    "encode": (LaterEncode, (2, 1)),
    "model": (LaterModel, "some"),
    "train": (LaterTrain, {"a": 1.0}),
    "distill": (LaterDistill, 4),
    "evaluate": (LaterEvaluate, 0.25),
}
# The training of a distillation has the settings of a training.
CHANGED = {"model": ["train", "distill"], "train": ["train", "distill"]}


def of_later_version(**changed: object) -> RunConfig:
    """The same run in a version with one more setting in each section."""
    sections = {
        name: kind(**STORED["run"][name], **({"more": changed[name]} if name in changed else {}))
        for name, (kind, _) in LATER.items()
    }
    return CONFIG.model_copy(update=sections)


def identity(config: RunConfig, stage: str) -> dict[str, Any]:
    run = RunInputs(config).stage_run(stage, PARENTS)
    return {"settings": run.settings, "fingerprint": run.fingerprint}


def recipes(config: RunConfig) -> dict[str, str]:
    pairs: Any = SimpleNamespace(
        pairs=pa.table({"url": ["https://a.example/1.jpg"], "caption": ["one"]}), version=""
    )
    images: Any = SimpleNamespace(
        shards=[SimpleNamespace(name="00000", digest="abc")], figures={}, settings={}
    )
    return {
        "download": recipe_of(pairs, config.download),
        "encode": _recipes(images, config.encode)["00000"],
    }


@pytest.mark.parametrize(
    "config", [CONFIG, of_later_version()], ids=["this version", "a later one"]
)
def test_stored_outputs_stay_fresh(config: RunConfig) -> None:
    assert {stage: identity(config, stage) for stage in STAGES} == STORED["stages"]
    assert recipes(config) == STORED["recipes"]


@pytest.mark.parametrize("section", LATER)
def test_a_new_setting_counts_where_it_is_used(section: str) -> None:
    used = of_later_version(**{section: LATER[section][1]})
    changed = [stage for stage in STAGES if identity(used, stage) != STORED["stages"][stage]]
    assert changed == CHANGED.get(section, [section])
    assert (recipes(used) != STORED["recipes"]) == (section in ("download", "encode"))
