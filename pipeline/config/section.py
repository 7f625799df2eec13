"""Base class of all config sections: common validation, markers of settings that change no output,
and the error for invalid settings."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Annotated, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from data_catalog.redaction import holds_secret

_SURROGATE = re.compile("[\ud800-\udfff]")
UNSPEAKABLE = "unspeakable"  # error type for values that no message may repeat


@dataclass(frozen=True, slots=True)
class FingerprintExclusion:
    """Marks a setting that cannot change the output of its stage: changing it reruns nothing."""

    help: str = ""  # the sentence that ends the help of the setting


_T = TypeVar("_T")
SpeedOnly = Annotated[_T, FingerprintExclusion("Changes speed only.")]
"""`SpeedOnly[int | None]` is a setting that changes only how fast its stage is, or how it reports.
The reference ends its help by saying so."""
SpeedOnlyUpToRounding = Annotated[_T, FingerprintExclusion("Changes speed only, up to rounding.")]
"""The same for a setting that may change the last bit of a number."""
ChangesNoOutput = Annotated[_T, FingerprintExclusion("Makes no output stale.")]
"""The same for a setting that changes nothing of a run but its disk or what is said of it."""
NotInFingerprint = Annotated[_T, FingerprintExclusion()]
"""A setting that is left out of the fingerprint for a reason of its own, which its help or a
comment gives."""


def settings_not_in_fingerprint(section: type[BaseModel]) -> frozenset[str]:
    """The names of the settings of a section that cannot change the output of its stage."""
    return frozenset(name for name, field in section.model_fields.items() if _marker(field))


def speed_settings(section: type[BaseModel]) -> frozenset[str]:
    """The names of the settings of a section that change its speed only, or no output."""
    fields = section.model_fields.items()
    return frozenset(name for name, field in fields if (mark := _marker(field)) and mark.help)


def _marker(field: FieldInfo) -> FingerprintExclusion | None:
    return next((mark for mark in field.metadata if isinstance(mark, FingerprintExclusion)), None)


def section_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The section that a setting is; None if it is a value, or no setting of the model."""
    if name not in model.model_fields:
        return None
    annotation = model.model_fields[name].annotation
    return next(
        (
            kind
            for kind in (annotation, *get_args(annotation))  # an optional section has both
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ),
        None,
    )


def refuse_credentials(url: str) -> str:
    """Return the URL, for a field validator. Raises PydanticCustomError if it contains a secret."""
    if holds_secret(url):
        raise PydanticCustomError(
            UNSPEAKABLE,
            "the URL contains a user, a password or a query, and others can see this setting; "
            "put secrets where fsspec looks for them (environment variables like "
            "AWS_SECRET_ACCESS_KEY, or files in ~/.config/fsspec)",
        )
    return url


def _kinds(annotation: object) -> Iterator[object]:
    """A type with those that it consists of."""
    yield annotation
    for part in get_args(annotation):
        if isinstance(part, Hashable):
            yield from _kinds(part)


def _parts(value: object) -> Iterator[object]:
    """The value itself, or the values inside a list or mapping."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from _parts(part)
    elif isinstance(value, dict):
        yield from (*value, *value.values())
    else:
        yield value


class Section(BaseModel):
    """A section of settings. It is immutable and rejects unknown settings."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        """The schema, in which the help of a marked setting ends with the marker's sentence."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for name, field in cls.model_fields.items():
            if (marker := _marker(field)) and marker.help:
                words = filter(None, (field.description, marker.help))
                properties[name]["description"] = " ".join(words)
        return schema

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: object, field: ValidationInfo) -> object:
        """Reject true and false for numbers; Python would accept them as 1 and 0."""
        kinds = set(_kinds(cls.model_fields[str(field.field_name)].annotation))
        takes_numbers = kinds & {int, float} and bool not in kinds
        if takes_numbers and any(isinstance(part, bool) for part in _parts(value)):
            raise ValueError("takes a number, not true or false")
        return value

    @field_validator("*")
    @classmethod
    def _can_be_used(cls, value: object) -> object:
        """Reject values that are invalid for every setting."""
        for part in _parts(value):
            if isinstance(part, int) and not -(2**63) <= part < 2**63:
                raise ValueError("does not fit into 64 bits")
            if isinstance(part, str) and "\0" in part:
                raise ValueError("contains a null character")
            if isinstance(part, str) and _SURROGATE.search(part):
                raise ValueError("is not valid Unicode text")
        return value


class ConfigError(ValueError):
    """Invalid settings of a run; the message lists every problem."""

    exit_code = 2
