"""What an image says of itself, and in what two models differ."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from pipeline.generate.image_metadata import (
    Encoder,
    ImageMetadata,
    ModelIdentity,
    Origin,
    validate_metadata,
)
from tests.pipeline.generate.test_request import EXAMPLES, request
from tests.support.untrained import ORIGIN
from tld_model.config import SamplingSettings

OWN = SamplingSettings()


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_command_says_which_request_it_is(kind: type) -> None:
    metadata = ImageMetadata(request=request(kind), origin=ORIGIN)
    stored = json.loads(metadata.model_dump_json())
    assert validate_metadata(stored, OWN) == metadata
    stored["request"]["command"] = "paint"
    with pytest.raises(ValidationError, match="paint"):
        validate_metadata(stored, OWN)
    for place in (stored, stored["origin"], stored["origin"]["model"]):
        place["path"] = "/etc/passwd"
        with pytest.raises(ValidationError, match="path"):
            validate_metadata(stored, OWN)
        del place["path"]


def test_what_is_no_metadata_of_tld_is_none() -> None:
    assert validate_metadata({}, OWN) is None
    assert validate_metadata({"prompt": "a star"}, OWN) is None


def test_the_kind_of_device_is_recorded() -> None:
    assert ORIGIN.model
    for device, kind in (("cpu", "cpu"), ("cuda", "gpu"), ("cuda:1", "gpu")):
        assert Origin.of(ORIGIN.model, device).device == kind


def test_models_differ_by_digest_as_far_as_it_is_known() -> None:
    model = ORIGIN.model
    assert model
    same_by_another_name = model.model_copy(update={"source": "a copy"})
    assert model.differences(same_by_another_name) == []
    other = model.model_copy(
        update={"digest": "9" * 64, "clip": Encoder(name="mine", identity="8" * 64)}
    )
    assert model.differences(other) == [
        f"model 'untrained' ({'0' * 12}), but here 'untrained' ({'9' * 12})",
        f"text encoder 'shapes-clip' ({'2' * 12}), but here 'mine' ({'8' * 12})",
    ]
    nameless = ModelIdentity(source="", digest="9" * 64, vae=None, clip=None)
    assert nameless.differences(other) == []
    assert nameless.differences(model) == [f"model ({'9' * 12}), but here 'untrained' ({'0' * 12})"]
