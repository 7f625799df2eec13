"""A strict YAML reader for configs: the core schema of YAML 1.2, unique keys, no anchors, bounded
depth.

PyYAML reads YAML 1.1, in which `no` is false, `010` is 8, `12:30:00` is a number and `2024-01-01`
is a date. It also silently takes the last of several equal keys.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_DEEPEST = 20
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,40})")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL = re.compile(r"~|null|Null|NULL|")


class YamlError(ValueError):
    """Text that is not valid YAML, or uses a YAML feature that configs may not. The message names
    the line."""


def read_tree(text: str) -> Any:
    """The content of a file: dicts with text keys, lists, text, numbers, true, false and None.

    Raises:
        YamlError: the message names the line.
    """
    try:
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise YamlError(f"{line}{error.problem or error.context}") from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise YamlError(str(error).splitlines()[0]) from None


def read_value(text: str) -> Any:
    """The value after `section.key=` on a command line: a list, a mapping or quoted text if it
    starts like one, otherwise a number, true, false, null, or the text as it is."""
    if text[:1] in tuple("[{\"'"):
        try:
            return read_tree(text)
        except YamlError:
            return text
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".", "", 1) if text.lstrip("+-.")[:1] in "iInN" else text)
    return text


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self.depth += 1
        if isinstance(event, yaml.AliasEvent):
            raise _refused("anchors and aliases are not supported; write the value out", event)
        if event.tag not in (None, "!"):
            raise _refused("tags, as in !!int, are not supported; leave it out", event)
        if self.depth > _DEEPEST:
            raise _refused(f"nested more than {_DEEPEST} levels deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "this key"
                raise _refused(f"the name of a setting must be text; put {shown} in quotes", key)
            if name in lines:
                raise _refused(
                    f"{name} is set twice, in lines {lines[name]} and {line}; keep one", key
                )
            lines[name] = line
        return super().construct_mapping(node, deep)


def _refused(problem: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", _BOOL, "tTfF"),
    ("null", _NULL, ["~", "n", "N", ""]),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
):
    _whole = re.compile(f"^(?:{_pattern.pattern})$")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, list(_first))
