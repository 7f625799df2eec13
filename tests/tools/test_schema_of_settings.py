"""The schema accepts what a config may hold, and refuses what no config may."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from pipeline.config.config_file import SCHEMA_FILE, shipped_configs
from pipeline.config.run import RunConfig
from pipeline.config.yaml_tree import YamlError, read_tree
from tests.support.command import REPOSITORY
from tests.support.documents import all_documents, blocks
from tools.reference_of_settings import Setting, all_settings
from tools.schema_of_settings import settings_schema

FIRST_LINE = f"# yaml-language-server: $schema={SCHEMA_FILE.name}\n"
SMALLEST = {"name": "x", "download": {"urls": "shapes"}}
VALUES: tuple[Any, ...] = (
    *(0, 1, 2, 64, 128, 0.0, 0.5, 1.0, 1.5, 5000.0, 1e-3, 1e9, -1, True, False, None),
    *("1", "0.5", "1.", ".5", "01", "1_0", " 1 ", "1e-3", "1E3", "-1", "+1", "64.0", ""),
    *("yes", "No", "OFF", "t", "true", "auto", "best", "tokens", "~/x", "s3://bucket/x", "clip"),
    *("cc12m", "10.0.0.0/8", "host:29400", "held_out_loss"),
    *(
        [],
        [0.5],
        [1, "2"],
        [0.2, 0.8],
        ["a", "b"],
        ["clip"],
        {},
        {"a": 1},
        {"a": True},
        {"clip_score": "0.5"},
        [True],
    ),
)
NUMBERS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


@cache
def validator() -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def values() -> Iterator[tuple[str, Setting]]:
    """The settings that are no sections."""
    for name, setting in all_settings().items():
        if not setting.is_section and "NAME" not in name:
            yield name, setting


def tree_with(name: str, value: object) -> dict[str, Any]:
    """The smallest config, with one more setting."""
    tree: dict[str, Any] = json.loads(json.dumps(SMALLEST))
    *sections, key = name.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
    node[key] = value
    return tree


def check(*paths: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("check-jsonschema")
    return subprocess.run(
        [tool, "--schemafile", SCHEMA_FILE, *paths], capture_output=True, text=True, check=False
    )


def test_the_shipped_configs_name_the_schema_and_fit_it() -> None:
    tool = Path(sys.executable).with_name("check-jsonschema")
    subprocess.run([tool, "--check-metaschema", SCHEMA_FILE], check=True)
    paths = [*shipped_configs().values()]
    done = check(*paths)
    assert done.returncode == 0, done.stdout
    for path in paths:
        assert path.read_text(encoding="utf-8").startswith(FIRST_LINE)
        link = REPOSITORY / "conf" / SCHEMA_FILE.name
        assert link.resolve() == SCHEMA_FILE.resolve(), "beside conf/*.yaml, which name it"


def test_the_configs_of_the_documentation_fit_it() -> None:
    partial = {key: part for key, part in settings_schema().items() if key != "required"}
    fragments = jsonschema_rs.validator_for(partial)
    seen = 0
    for text in all_documents().values():
        for code in blocks(text, "yaml"):
            with suppress(YamlError):
                tree = read_tree(code)
                if isinstance(tree, dict) and tree.keys() <= RunConfig.model_fields.keys():
                    (validator() if "name" in tree else fragments).validate(tree)
                    seen += 1
    assert seen >= 5, "no block was recognized"


def test_it_accepts_every_form_of_a_value_that_a_config_may_hold() -> None:
    refused, accepted = [], set()
    for name, _ in values():
        for value in VALUES:
            tree = tree_with(name, value)
            try:
                RunConfig.model_validate(tree)
            except ValidationError:
                continue
            accepted.add(name)
            if not validator().is_valid(tree):
                refused.append((name, value))
    assert not refused
    assert len(accepted) > 100


def test_it_accepts_every_default() -> None:
    tree = RunConfig.model_validate({**SMALLEST, "distill": {}}).model_dump(mode="json")
    validator().validate(tree)


def test_it_refuses_what_is_beyond_each_limit() -> None:
    tried = 0
    for name, setting in values():
        parts = [setting.schema, *setting.schema.get("anyOf", ())]
        for limit, bound in [(key, part[key]) for part in parts for key in NUMBERS if key in part]:
            beyond = {"minimum": bound - 1, "maximum": bound + 1}.get(limit, bound)
            tree = tree_with(name, beyond)
            with pytest.raises(ValidationError):
                RunConfig.model_validate(tree)
            assert not validator().is_valid(tree), (name, beyond)
            tried += 1
    assert tried > 80


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nmae", "x"),
        ("train.stpes", 5),
        ("train.score.evry", 5),
        ("distill.stps", 5),
        ("phases.fine.train.stpes", 5),
        ("phases.fine.evaluate", {}),
        ("phases.a b.train", {}),
        ("evaluate.require", {"promt_accuracy": 1}),
        ("download.source", "cc99"),
        ("train.score.best_by", "latency_s"),
        ("train.ema_decay", 1),
        ("train.ema_decay", [0.9, 2]),
        ("evaluate.ema", "worst"),
        ("evaluate.guidance_interval", [0.1]),
        ("train.steps", "many"),
        ("train.steps", True),
        ("train.steps", 1.5),
        ("model.layers", True),
        ("encode.latent_clip", [True]),
        ("train.caption_weights", {"alt": True}),
        ("encode.flips", "maybe"),
        ("train.compile", "never"),
        ("encode.text", "words"),
        ("train.score", None),
        ("name", "a/b"),
    ],
)
def test_it_refuses_wrong_names_and_values(name: str, value: object) -> None:
    tree = tree_with(name, value)
    with pytest.raises(ValidationError):
        RunConfig.model_validate(tree)
    assert not validator().is_valid(tree)


def test_a_tool_names_the_places_of_mistakes(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(
        "name: a\ndownload: {urls: shapes}\ntrain: {stpes: 5, lr: 0, decay_steps: no}"
    )
    done = check(config)
    assert done.returncode == 1
    assert "'stpes' was unexpected" in done.stdout
    assert "$.train.lr: 0 is less than or equal to the minimum of 0" in done.stdout
    assert "$.train.decay_steps: 'no' does not match" in done.stdout


def test_each_setting_is_explained_in_one_line() -> None:
    def sections(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for setting in schema.get("properties", {}).values():
            if "$ref" not in setting:
                yield setting
                yield from sections(setting)

    helps = [setting["description"] for setting in sections(settings_schema())]
    assert len(helps) > 150
    assert not [text for text in helps if "\n" in text or not text]
    assert "Peak learning rate. [default: 0.0003]" in helps
