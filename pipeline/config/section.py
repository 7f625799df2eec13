"""What all sections of a run's settings share: how a value is checked, and the error for one that
is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from data_catalog.redaction import holds_secret

_SURROGATE = re.compile("[\ud800-\udfff]")
UNSPEAKABLE = "unspeakable"  # type of a problem whose value no message repeats


def refuse_credentials(url: str) -> str:
    """The URL, for a field validator. Raises PydanticCustomError where it holds a secret."""
    if holds_secret(url):
        raise PydanticCustomError(
            UNSPEAKABLE,
            "the URL holds a user, a password or a query, and this place is shown to others; put "
            "secrets where fsspec "
            "looks for them (environment variables like AWS_SECRET_ACCESS_KEY, or files in "
            "~/.config/fsspec)",
        )
    return url


def _parts(value: object) -> Iterator[object]:
    """A value, or those that a list or a mapping holds."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from _parts(part)
    elif isinstance(value, dict):
        yield from (*value, *value.values())
    else:
        yield value


class Section(BaseModel):
    """Settings that belong together. They cannot be changed, and none that is unknown is taken."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: object, field: ValidationInfo) -> object:
        """Python takes true for 1; a setting does not."""
        annotation = cls.model_fields[str(field.field_name)].annotation
        kinds = set(get_args(annotation)) or {annotation}
        if isinstance(value, bool) and kinds & {int, float}:
            raise ValueError("takes a number, not true or false")
        return value

    @field_validator("*")
    @classmethod
    def _can_be_used(cls, value: object) -> object:
        """What no setting can mean, whichever it is."""
        for part in _parts(value):
            if isinstance(part, int) and not -(2**63) <= part < 2**63:
                raise ValueError("is beyond 64 bits")
            if isinstance(part, str) and "\0" in part:
                raise ValueError("holds a null character")
            if isinstance(part, str) and _SURROGATE.search(part):
                raise ValueError("is not valid Unicode text")
        return value


class ConfigError(ValueError):
    """A run that is not described validly; the message lists every problem."""

    exit_code = 2
