"""pipeline/config/presets/tld.schema.json: the JSON Schema by which editors complete, explain and
check a config. It follows from RunConfig.

A value may be typed in every form that a config takes: a number in quotes, `yes` for true, one
decay for a list of them. Rules that several settings make together are not in it.
"""

from __future__ import annotations

import json
from typing import Any

from data_catalog.scores import SCORES
from data_catalog.sources import known_sources
from pipeline.config.phases import SECTIONS
from pipeline.config.run import RunConfig
from pipeline.config.score import CHOOSES_BEST

Schema = dict[str, Any]  # of JSON Schema
# Editors know this version best. In it, nothing stands beside a reference, and `items` has the
# schemas of a list of fixed length.
_VERSION = "http://json-schema.org/draft-07/schema#"
_REFERENCE = "#/$defs/"
# An editor that completes a section would type all its defaults, so that they stand in the help.
_DROPPED = ("$ref", "$defs", "title", "format", "prefixItems", "default")
_TRUTHS = ("true", "false", "yes", "no", "on", "off", "t", "f", "y", "n", "1", "0")
_ANY_CASE = "|".join("".join(f"[{c}{c.upper()}]" for c in truth) for truth in _TRUTHS)
# What pydantic takes for a value that is not text.
_FORMS: dict[str, Schema] = {
    "boolean": {
        "type": ["boolean", "number", "string"],
        "minimum": 0,
        "maximum": 1,
        "pattern": rf"^({_ANY_CASE})$",
        "patternErrorMessage": "takes true or false",
    },
    "integer": {
        "type": ["integer", "string"],
        "pattern": r"^\s*[-+]?[0-9][0-9_]*(\.0*)?\s*$",
        "patternErrorMessage": "takes a whole number",
    },
    "number": {
        "type": ["number", "string"],
        "pattern": r"^\s*[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9_]+)?\s*$",
        "patternErrorMessage": "takes a number",
    },
}


def schema_page() -> str:
    """The file."""
    return f"{json.dumps(settings_schema(), indent=1, ensure_ascii=False)}\n"


def settings_schema() -> Schema:
    """The schema of a config."""
    run = RunConfig.model_json_schema()
    schema = _section(run, run["$defs"], "")
    (phase,) = schema["properties"]["phases"]["patternProperties"].values()
    for name in SECTIONS:
        phase["properties"][name] = {"$ref": f"#/properties/{name}"}
    return {"$schema": _VERSION, **schema}


def _section(schema: Schema, definitions: Schema, name: str) -> Schema:
    """A section with its settings, or one setting, without references."""
    target = definitions.get(schema.get("$ref", "").removeprefix(_REFERENCE), {})
    whole = {key: value for key, value in (target | schema).items() if key not in _DROPPED}
    if about := " ".join(dict.fromkeys(filter(None, (_help(target), _help(schema))))):
        whole["description"] = about
    if "properties" in whole:
        above = f"{name}." if name else ""
        whole["properties"] = {
            key: _section(setting, definitions, above + key)
            for key, setting in whole["properties"].items()
        }
    if "patternProperties" in whole:
        whole["patternProperties"] = {
            pattern: _section(setting, definitions, f"{name}.NAME")
            for pattern, setting in whole["patternProperties"].items()
        }
        whole["additionalProperties"] = False
    for key in ("additionalProperties", "items"):
        if isinstance(whole.get(key), dict):
            whole[key] = _section(whole[key], definitions, "")
    if "prefixItems" in target | schema:
        whole["items"] = [_section(item, definitions, "") for item in schema["prefixItems"]]
    if "anyOf" in whole:
        whole |= _one_of([_section(part, definitions, "") for part in whole.pop("anyOf")])
    if isinstance(kind := whole.get("type"), str) and "enum" not in whole:
        whole |= _FORMS.get(kind, {})
    return _with_choices(whole, name)


def _help(schema: Schema) -> str:
    """The help in one line, with the default if that is a value."""
    text = " ".join(schema.get("description", "").split())
    text = f"{text}." if text and not text.endswith((".", "]")) else text
    default = schema.get("default")
    if default is None or isinstance(default, dict):
        return text
    return f"{text} [default: {default if isinstance(default, str) else json.dumps(default)}]"


def _one_of(parts: list[Schema]) -> Schema:
    """What takes any of these. Types that restrict each other in nothing become one list of types,
    of which editors say in few words what they take."""
    words = [key for part in parts for key in part if key != "type"]
    if len(words) > len(set(words)) or not all("type" in part for part in parts):
        return {"anyOf": parts}
    if any({"enum", "const"} & part.keys() for part in parts):
        return {"anyOf": parts}
    kinds = [part["type"] for part in parts]
    types = [kind for one in kinds for kind in (one if isinstance(one, list) else [one])]
    merged = {key: value for part in parts for key, value in part.items()}
    return merged | {"type": list(dict.fromkeys(types))}


def _with_choices(schema: Schema, name: str) -> Schema:
    """A setting with the names that its validator knows."""
    match name.rpartition(".")[2]:
        case "source":
            return schema | {"enum": [*known_sources(), None]}
        case "best_by":
            return schema | {"enum": [*CHOOSES_BEST, None]}
        case "ema":  # a number in quotes is none here
            return schema | {"anyOf": [{"type": "integer", "minimum": 0}, *schema["anyOf"][1:]]}
        case "require":
            each = schema["additionalProperties"]
            scores = {score: each | {"description": SCORES[score].meaning} for score in SCORES}
            return schema | {"properties": scores, "additionalProperties": False}
        case "ema_decay":
            return schema | _one_of([{"type": "array", "items": schema["items"]}, schema["items"]])
    return schema
