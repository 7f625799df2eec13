"""The settings of sampling are the same wherever they are read: bounds, defaults and help."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from flows.cli.image_options import Guidance, Solver, Steps
from flows.tracking.logged_model import ModelDetails
from pipeline.config.evaluate import EvaluateConfig
from pipeline.generate.request import SampleRequest
from tld_model.config import DEFAULT_SAMPLING, SamplingSettings

DECLARED = TypeAdapter(SamplingSettings).json_schema()["properties"]
REQUEST: dict[str, Any] = {"prompts": ["a star"], "count": 1, "seed": 0}


def declared_by(model: type[BaseModel]) -> dict[str, Any]:
    """What a model says of the settings of sampling, except for their defaults."""
    properties = model.model_json_schema()["properties"]
    return {name: without_default(properties[name]) for name in DECLARED}


def without_default(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "default"}


@pytest.mark.parametrize("model", [EvaluateConfig, SampleRequest])
def test_each_reader_has_their_bounds_and_their_help(model: type[BaseModel]) -> None:
    expected = {name: without_default(schema) for name, schema in DECLARED.items()}
    assert all(schema["description"] for schema in expected.values())
    assert declared_by(model) == expected


def test_runs_have_their_defaults() -> None:
    assert EvaluateConfig().sampling == DEFAULT_SAMPLING == SamplingSettings()
    assert [name for name in EvaluateConfig.model_fields if name in DECLARED] == [
        *("steps", "solver", "guidance", "guidance_interval")
    ]
    assert next(iter(EvaluateConfig.model_fields)) == "prompts"


@pytest.mark.parametrize(
    ("name", "option"), [("steps", Steps), ("guidance", Guidance), ("solver", Solver)]
)
def test_the_options_of_commands_have_their_help(name: str, option: object) -> None:
    help_text = get_args(option)[1].help
    assert help_text == f"{DECLARED[name]['description']} [default: evaluate.{name}]"


@pytest.mark.parametrize("interval", [(0.8, 0.2), (0.5, 0.5), (-1, 1), (0, 2)])
def test_every_reader_checks_the_order_of_the_interval(interval: tuple[float, float]) -> None:
    sampling = asdict(DEFAULT_SAMPLING) | {"guidance_interval": interval}
    readers: dict[type[BaseModel], dict[str, Any]] = {
        EvaluateConfig: sampling,
        SampleRequest: REQUEST | sampling,
        ModelDetails: {"vae": "a", "clip": "b", "sampling": sampling},
    }
    for model, content in readers.items():
        with pytest.raises(ValidationError, match="give two noise levels between 0 and 1"):
            model.model_validate(content)


def test_a_request_samples_with_what_it_asks_for() -> None:
    sampling = SamplingSettings(3, 2.0, "heun", (0.2, 0.8))
    assert SampleRequest.model_validate(REQUEST | asdict(sampling)).sampling == sampling
