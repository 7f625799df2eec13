"""docs/reference/settings.md: the sections of RunConfig as tables, read from its JSON schema."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pipeline.config.run import RunConfig

Schema = Mapping[str, Any]  # of JSON Schema
_REFERENCE = "#/$defs/"
_WORDS = {
    "integer": "integer",
    "number": "number",
    "boolean": "`true` or `false`",
    "string": "text",
    "null": "`null`",
}
_PLURALS = {"integer": "integers", "number": "numbers", "string": "texts"}
_LIMITS = {  # keyword of JSON Schema -> words before its value
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "multipleOf": "a multiple of",
}
_CODE = re.compile(r"`[^`]*`")
_OPTION = re.compile(r"(?<![\w`-])--[a-z][a-z-]*")
_HEAD = """\
# Settings

<!-- Written by `python -m tools.write_reference` from pipeline/config and tld_model/config.py. -->

A run is described by a YAML file, the *config*, in sections. A word `section.key=value` after the
config's name changes one setting for one command, as in
`tld run conf/tiny.yaml train.lr=5e-4 evaluate.prompts=64`. `tld config CONFIG` prints every setting
with its value. A setting that is required has no default.

A config is YAML 1.2 without anchors: `no` and `010` are text, and a setting that is there twice is
an error. In paths, `~` is the home folder, `$NAME` the value of an environment variable, and `$$` a
dollar sign. An encoder whose files lack weights, or whose tokenizer is another model's, is refused.

An editor [completes, explains and checks](../tutorials/your-own-images.md#let-your-editor-help)
these settings by the JSON Schema that `tld config --schema` prints.

Settings that change only speed never make an output stale. [Freshness](../explanation/freshness.md)
says which settings do.
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, or the section that several make."""

    name: str  # dotted
    schema: Schema  # its own, with what stands beside a reference to a section
    is_section: bool
    required: bool

    @property
    def anchor(self) -> str:
        return f'<a id="{self.name}"></a>'

    @property
    def heading(self) -> str:
        """Of a section. A name without a dot is an anchor by itself."""
        return f"{self.anchor}\n\n## {self.name}\n" if "." in self.name else f"## {self.name}\n"


@cache
def all_settings() -> dict[str, Setting]:
    """Every setting and section of a run, by its dotted name, in the order of the code."""
    return {setting.name: setting for setting in _settings(_run(), "")}


@cache
def _run() -> dict[str, Any]:
    return RunConfig.model_json_schema()


def _settings(section: Schema, above: str) -> Iterator[Setting]:
    for key, schema in section["properties"].items():
        target = _target(schema)
        setting = Setting(
            above + key, target | schema, "properties" in target, key in section.get("required", ())
        )
        yield setting
        if setting.is_section:
            yield from _settings(target, f"{setting.name}.")
        elif named := _target(_held(schema)):
            name = f"{setting.name}.NAME"
            yield Setting(name, named, is_section=True, required=False)
            yield from _settings(named, f"{name}.")


def _held(schema: Schema) -> Schema:
    """What a mapping holds; nothing of one that holds anything, and of a value."""
    of_names = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    return of_names[0] if isinstance(of_names[0], dict) else {}


def _target(schema: Schema) -> dict[str, Any]:
    """The definition that a schema refers to, or nothing."""
    parts = [schema, *schema.get("anyOf", ())]  # a section that may be null is one of two
    name = next((part["$ref"] for part in parts if "$ref" in part), "").removeprefix(_REFERENCE)
    found: dict[str, Any] = _run()["$defs"][name] if name else {}
    return found


def settings_page() -> str:
    """The page."""
    parts = [_HEAD, "## The run\n", _table("")]
    for setting in all_settings().values():
        if setting.is_section:
            parts += [setting.heading, f"{_about(setting)}\n", _table(setting.name)]
    return "\n".join(parts)


def _about(section: Setting) -> str:
    """What a section is: the sentence at its class, and the one where it is used."""
    defined = str(_target(section.schema).get("description", ""))
    here = str(section.schema.get("description", ""))
    said = " ".join(dict.fromkeys(filter(None, (defined, here))))
    return f"{linked(' '.join(said.split()), section.name).replace('->', '→').rstrip('.')}."


def _table(section: str) -> str:
    """The settings that are directly in a section."""
    rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for setting in all_settings().values():
        if setting.name.rpartition(".")[0] == section and not setting.is_section:
            meaning = linked(
                " ".join(str(setting.schema.get("description", "")).split()), setting.name
            )
            takes = f"{setting.anchor}`{setting.name}`<br>{value_words(setting.schema)}"
            rows.append(table_row(takes, _default(setting), meaning))
    return "\n".join(rows) + "\n"


def table_row(*cells: str) -> str:
    """A row of a Markdown table. In code, a bar can be written as an entity only where the code is
    HTML."""

    def as_html(code: re.Match[str]) -> str:
        return (
            f"<code>{html.escape(code[0][1:-1], quote=False)}</code>" if "|" in code[0] else code[0]
        )

    return f"| {' | '.join(_CODE.sub(as_html, cell).replace('|', '&#124;') for cell in cells)} |"


def value_words(schema: Schema) -> str:
    """What a setting takes, and within which limits, in words."""
    if "anyOf" in schema:
        return ", or ".join(value_words(part) for part in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if choices := schema.get("enum"):
        return " or ".join(f"`{choice}`" for choice in choices)
    match schema.get("type"):
        case "array" if "prefixItems" in schema:
            return f"list of {len(schema['prefixItems'])} {_plural(schema['prefixItems'][0])}"
        case "array":
            most = f", at most {schema['maxItems']} of them" if "maxItems" in schema else ""
            return f"list of {_plural(schema['items'])}{most}"
        case "object":
            return f"mapping from names to {_plural(_held(schema))}"
        case kind:
            words = "path" if schema.get("format") == "path" else _WORDS[str(kind)]
            return f"{words} {limits}" if (limits := _limits(schema)) else words


def _plural(schema: Schema) -> str:
    """What a list or a mapping holds."""
    if "type" not in schema:
        return "sections" if schema else "values"
    limits = _limits(schema)
    return f"{_PLURALS[schema['type']]}, each {limits}" if limits else _PLURALS[schema["type"]]


def _limits(schema: Schema) -> str:
    if {"minimum", "maximum"} <= schema.keys():
        return f"{_number(schema['minimum'])} to {_number(schema['maximum'])}"
    limits = [f"{words} {_number(schema[key])}" for key, words in _LIMITS.items() if key in schema]
    if "maxLength" in schema:
        limits.append(f"of at most {_number(schema['maxLength'])} characters")
    if "pattern" in schema:
        limits.append(f"that matches `{schema['pattern']}`")
    return ", ".join(limits)


def _number(value: float) -> str:
    if value == 2**63 - 1:
        return "2⁶³ − 1"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else f"{value:g}"


def _default(setting: Setting) -> str:
    if setting.required:
        return "required"
    default = setting.schema.get("default")
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def linked(text: str, within: str = "", page: str = "") -> str:
    """Help as Markdown: names of settings lead to their rows (on a page), those of the section
    `within` also in their short form; options of commands are code."""
    parts, start = [], 0
    for code in _CODE.finditer(text):
        parts += [_linked(text[start : code.start()], within, page), code[0]]
        start = code.end()
    return "".join([*parts, _linked(text[start:], within, page)])


def _linked(text: str, within: str, page: str) -> str:
    settings = all_settings()
    dotted = "|".join(
        re.escape(name) for name in sorted(settings, key=len, reverse=True) if "." in name
    )
    section = (
        within if within in settings and settings[within].is_section else within.rpartition(".")[0]
    )

    def link(found: re.Match[str]) -> str:
        name = found["name"]
        target = name if name in settings else f"{section}.{name}"
        is_other = target in settings and target != within and ("." in name or "_" in name)
        return f"[`{found[0]}`]({page}#{target})" if is_other else found[0]

    escaped = text.replace("*", r"\*").replace("<", "&lt;").replace("$", "&#36;")
    name = rf"(?<![\w./-])(?P<name>{dotted}|[a-z][a-z0-9]*(?:_[a-z0-9]+)+)"
    value = r"(?:=[^\s,;:)'\"]*[^\s,;:).'\"])?(?!\w)"
    return re.sub(name + value, link, _OPTION.sub(lambda option: f"`{option[0]}`", escaped))
