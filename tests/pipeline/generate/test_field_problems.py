"""A problem names its field and its value, whatever that is."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.generate.field_problems import problems_of
from pipeline.generate.request import SampleRequest
from tests.pipeline.generate.test_request import request


def test_what_a_value_is_says_its_problem_however_deep_it_is() -> None:
    deep: Any = 0
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(ValidationError) as mistake:
        request(SampleRequest, seed=deep, negative="x" * 10**6)
    problems = dict(problems_of(mistake.value))
    assert problems["seed"].startswith("Input should be a valid integer, got [[[")
    assert all(len(problem) < 200 for problem in problems.values())
