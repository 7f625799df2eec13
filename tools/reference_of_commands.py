"""docs/reference/cli.md: every command of `tld`, with its usage, help and options, read from the
application."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from cyclopts import App, Group
from cyclopts.argument import Argument

from flows.cli.app import app
from tools.reference_of_settings import linked, table_row

_METAVARS = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}
_EXAMPLE = re.compile(r"^(?:tld|curl|prefect) ")
_INLINE_EXAMPLE = re.compile(
    r"((?:Examples?|For example|Sample with the result)[^:.]*:)\s+((?:tld|curl|prefect) )"
)
_OVERRIDES = "Settings to change, as section.key=value."
_SETTINGS = "settings.md"
_MORE = {  # what a page can say and a help text is too short for
    "tld bench": "`tld bench CONFIG --only load --pairs 1000000` measures the loader's start, "
    "memory and speed on a made-up million in a scratch folder, 6 GB at the default size. `tld "
    "bench CONFIG train.compile=true --only train` says whether compiling the model's blocks pays "
    "on this GPU; on a CPU it did not.",
}
_HEAD = """\
# Commands

<!-- Written by `python -m tools.write_reference` from the application in flows/cli. -->

`tld --help` lists the commands, `tld COMMAND --help` explains one, and `tld --version` prints the
version. `tld --install-completion` lets your shell (bash, zsh or fish) complete commands and
options: it writes a script into the shell's folder for them, and a line that loads it into the
shell's startup file.

`CONFIG` describes a run: a YAML file, or the name of one that is shipped with tld: `tiny`,
`short-prompts`, `emoji`, `tld-100m`, `modern-250m` or `original-100m`. A file of that name in the
current folder comes first. [Settings](settings.md) lists what it may hold.
In usage lines, what is in brackets may be left out, and `...` means that several are allowed. A
checkout that is not installed runs the same commands by `python -m flows.cli`.

[Exit codes](exit-codes.md) tells a mistake of yours from a stage that failed.
"""


def commands_page() -> str:
    """The page."""
    parts, commands = [_HEAD], list(_commands(app, ("tld",)))
    for group in sorted(
        {group for _, command in commands for group in _groups(command)}, key=_place
    ):
        first_words = [path[1] for path, command in commands if group in _groups(command)]
        parts.append(f"## {group.name}\n")
        parts += [
            "\n".join(_section(path, command))
            for path, command in commands
            if path[1] in first_words
        ]
    return "\n".join(parts)


def _groups(command: App) -> tuple[Group, ...]:
    """The headings under which a command is listed; its own commands have none."""
    groups = command.group if isinstance(command.group, tuple) else (command.group,)
    return tuple(group for group in groups if isinstance(group, Group))


def _place(group: Group) -> Any:
    return group.sort_key


def _commands(parent: App, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command below one, with the words that call it."""
    for name in parent:
        if not name.startswith("-"):
            yield (*above, name), parent[name]
            yield from _commands(parent[name], (*above, name))


def _section(path: Sequence[str], command: App) -> Iterator[str]:
    words = " ".join(path)
    yield f"### {words}\n"
    if command.default_command is None:
        names = [name for name in command if not name.startswith("-")]
        yield f"{command.help}\n"
        yield (
            "Its commands: "
            + ", ".join(f"[`{name}`](#{'-'.join([*path, name])})" for name in names)
            + ".\n"
        )
        return
    arguments = [one for one in command.assemble_argument_collection() if one.show]
    usage = " ".join([words, *(_usage(one).replace(" ", "\0") for one in arguments)])
    yield "```text\n" + _wrapped(usage, 96, "    ").replace("\0", " ") + "\n```\n"
    yield from _help(command.help or "")
    yield from _help(_MORE.get(words, ""))
    if arguments:
        yield from _table(arguments)


def _help(text: str) -> Iterator[str]:
    """Paragraphs as Markdown, wrapped; lines that show a command become blocks of code."""
    shown: list[str] = []
    for paragraph in re.split(r"\n\s*\n", _INLINE_EXAMPLE.sub(r"\1\n\n\2", text.strip())):
        commands = [" ".join(part.split()) for part in re.split(r"\n\s*(?=tld )", paragraph)]
        if _EXAMPLE.match(commands[0]):
            shown += commands
            continue
        yield from _code(shown)
        shown.clear()
        if paragraph:
            yield _wrapped(linked(" ".join(paragraph.split()), page=_SETTINGS), 100) + "\n"
    yield from _code(shown)


def _wrapped(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _code(lines: list[str]) -> Iterator[str]:
    if lines:
        yield "```sh\n" + "\n".join(lines) + "\n```\n"
        lines.clear()


def _table(arguments: Sequence[Argument]) -> Iterator[str]:
    yield "| argument | default | meaning |"
    yield "| --- | --- | --- |"
    for one in arguments:
        said = " ".join(
            (one.parameter.help or (_OVERRIDES if one.is_var_positional() else "")).split()
        )
        choices = ", ".join(f"`{choice}`" for choice in one.get_choices() or ())
        meaning = " ".join(
            filter(None, (linked(said, page=_SETTINGS), choices and f"One of {choices}."))
        )
        yield table_row(f"`{_name(one)}`", _default(one), meaning)
    yield ""


def _name(one: Argument) -> str:
    """An argument as it is typed, with what it takes."""
    if _is_positional(one):
        return one.name.removeprefix("--").replace("-", "_").upper()
    value = _value(one.hint)
    return f"{one.name} {value}" if value else one.name


def _usage(one: Argument) -> str:
    name = f"{_name(one)}..." if one.is_var_positional() else _name(one)
    return name if one.required else f"[{name}]"


def _is_positional(one: Argument) -> bool:
    return one.is_var_positional() or str(one.field_info.kind) == "POSITIONAL_OR_KEYWORD"


def _value(hint: Any) -> str:
    """What an option takes, as a metavariable; nothing for a switch."""
    if hint is bool:
        return ""
    origin, parts = (
        get_origin(hint),
        [part for part in get_args(hint) if part not in (NoneType, Ellipsis)],
    )
    if origin is Literal:
        return "CHOICE"
    if origin in (Union, UnionType):
        return _value(parts[0])
    return f"{_value(parts[0])}..." if origin is tuple else _METAVARS[hint]


def _default(one: Argument) -> str:
    default = one.field_info.default
    if one.required:
        return "required"
    if one.is_var_positional() or default is None or default is False or default in ("", ()):
        return ""
    return f"`{' '.join(map(str, default)) if isinstance(default, tuple) else default}`"
