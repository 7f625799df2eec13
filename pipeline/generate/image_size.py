"""Sizes of images: which of them a model can generate."""

from __future__ import annotations

Size = tuple[int, int]  # width and height, pixels

_MOST_TOKENS = 128**2  # the cost of attention is quadratic in the number of tokens


class SizeError(ValueError):
    """The model cannot generate images of this size; the message names sizes that it can."""


def size_problem(size: Size, multiple: int) -> str | None:
    """Why a model cannot generate images of this size, or None if it can.

    `multiple` is the width and height of a token in pixels.
    """
    width, height = size
    if width % multiple or height % multiple or min(size) < multiple:
        below, above = (
            "x".join(
                str(max(1, -(-side // multiple) if up else side // multiple) * multiple)
                for side in size
            )
            for up in (False, True)
        )
        return (
            f"{width}x{height}: this model needs multiples of {multiple} pixels; "
            f"nearest are {below} and {above}"
        )
    if (tokens := width * height // multiple**2) > _MOST_TOKENS:
        side = int(_MOST_TOKENS**0.5) * multiple
        return (
            f"{width}x{height}: is {tokens} tokens of this model; the maximum is {_MOST_TOKENS}, "
            f"for example {side}x{side}"
        )
    return None
