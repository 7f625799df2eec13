"""All problems of a command line, reported at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from flows.terminal.errors import UserError

P = ParamSpec("P")
Value = TypeVar("Value")


class Problems(UserError):
    """One or more problems of a command line, below a heading."""

    def __init__(self, problems: Sequence[str], heading: str = "cannot sample") -> None:
        super().__init__(f"{heading}:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.problems = tuple(problems)


def refuse(problems: Sequence[str], heading: str = "cannot sample") -> None:
    """Raise Problems if there are any."""
    if problems:
        raise Problems(problems, heading)


def attempt(
    read: Callable[P, Value], *args: P.args, **kwargs: P.kwargs
) -> tuple[Value | None, tuple[str, ...]]:
    """The value that a reader returns and no problems, or None and the problems it raises."""
    try:
        return read(*args, **kwargs), ()
    except Problems as error:
        return None, error.problems
    except UserError as error:
        return None, (str(error),)
