"""What resumes the command of this process, as a command and in words."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence

from data_catalog.redaction import redact_credentials
from pipeline.config.command_line import typed_words

_FORCE = "--force"


def resuming_command(begun: Collection[str] = ()) -> str:
    """The command that resumes this one: without --force for the stages that have begun, which
    would begin from scratch again. "" if it holds the secret of a URL."""
    words = typed_words()
    command = shlex.join(["tld", *_without_force(words, begun)])
    return command if words and redact_credentials(command) == command else ""


def same_command() -> str:
    """What to run again to resume, in words."""
    words = typed_words()
    if any(word.partition("=")[0] == _FORCE for word in words[: _end_of_options(words)]):
        return "the same command, without --force for stages that had begun,"
    return "the same command"


def _without_force(words: Sequence[str], begun: Collection[str]) -> list[str]:
    """The words of a command without --force for stages that have begun. In `tld run` a stage
    follows it; in `tld train` it is of this one."""
    end = _end_of_options(words)
    others, rest = list[str](), iter(words[:end])
    for word in rest:
        option, _, stage = word.partition("=")
        if option != _FORCE:
            others.append(word)
            continue
        typed = [word]
        if words[0] != "run":
            stage = words[0]
        elif not stage:
            stage = next(rest, "")
            typed.append(stage)
        if stage not in begun:
            others += typed
    return [*others, *words[end:]]


def _end_of_options(words: Sequence[str]) -> int:
    return words.index("--") if "--" in words else len(words)
