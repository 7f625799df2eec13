"""What the documentation names exists: commands, options, settings, files, links. Runs none."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from cyclopts import App, CycloptsError
from pydantic import BaseModel

from flows.cli.app import app
from pipeline.config.config_file import shipped_configs
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.config.yaml_tree import read_tree
from tests.support.command import REPOSITORY
from tests.support.documents import all_documents, blocks, without_blocks

README_LINES = 150
SHELL = ("sh", "bash", "shell", "console", "")
ROOMS = (
    "data_catalog",
    "tld_model",
    "pipeline",
    "flows",
    "tests",
    "tools",
    "docs",
    "conf",
    "docker",
)
YOURS = {"conf/mine.yaml", "conf/other.yaml", "conf/x.yaml"}  # examples of what a reader writes
MADE = {"docker/secrets", "docker/.env"}  # by the first start
HISTORY = {"CHANGELOG.md"}  # which names what is gone
DOCUMENTS = {name: text for name, text in all_documents().items() if name not in HISTORY}
SECTIONS = {
    name
    for name, field in RunConfig.model_fields.items()
    for kind in (field.annotation, *get_args(field.annotation))  # an optional section is a union
    if isinstance(kind, type) and issubclass(kind, BaseModel)
}
FILES = re.compile(r"\.(py|yaml|yml|pth|safetensors|json|jsonl|csv|md)$")
OVERRIDE = re.compile(rf"(?<![\w./-])((?:{'|'.join(sorted(SECTIONS))})(?:\.\w+)+)=")

each_document = pytest.mark.parametrize("name", DOCUMENTS)


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= README_LINES


@each_document
def test_commands_of_code_blocks_parse(name: str) -> None:
    problems = [problem for words in commands(DOCUMENTS[name]) if (problem := parse_problem(words))]
    assert not problems


@each_document
def test_commands_within_sentences_exist(name: str) -> None:
    problems = [
        problem
        for code in inline_code(DOCUMENTS[name])
        if code.startswith("tld ") and (problem := mention_problem(code.split()[1:]))
    ]
    assert not problems


@each_document
def test_settings_exist(name: str) -> None:
    text = DOCUMENTS[name]
    told = set(OVERRIDE.findall(text))
    told |= {code for code in inline_code(text) if is_setting_like(code)}
    told |= {setting for code in blocks(text, "yaml") for setting in settings_of(code)}
    assert not {setting for setting in told if not is_setting(setting)}


@each_document
def test_values_of_settings_are_allowed(name: str) -> None:
    problems = []
    for words in commands(DOCUMENTS[name]):
        overrides = [word for word in words if OVERRIDE.match(word) and "…" not in word]
        named = {Path(word).stem for word in words} & shipped_configs().keys()
        try:  # tld-100m has nearly all defaults
            load_config(Path(named.pop() if named else "tld-100m"), overrides)
        except ConfigError as error:
            problems.append(str(error))
    assert not problems


@each_document
def test_files_of_the_repository_exist(name: str) -> None:
    text = DOCUMENTS[name]
    told = {
        code
        for code in inline_code(text)
        if code.partition("/")[0] in ROOMS and re.fullmatch(r"[\w./*-]+", code)
    }
    told |= {
        word for words in commands(text) for word in words if re.fullmatch(r"conf/[\w.-]+", word)
    }
    told = {path for path in told if "/" in path} - YOURS - MADE
    assert not {path for path in told if not any(REPOSITORY.glob(path.rstrip("/")))}


@each_document
def test_targets_of_make_and_modules_exist(name: str) -> None:
    code = "\n".join([*inline_code(DOCUMENTS[name]), *blocks(DOCUMENTS[name], *SHELL)])
    targets = set(
        re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    )
    assert set(re.findall(r"^(?:\w+=\S+ )*make ([a-z][a-z-]*)", code, re.MULTILINE)) <= targets
    for module in re.findall(r"python -m (tools\.\w+|flows\.[\w.]+|pipeline\.[\w.]+)", code):
        path = REPOSITORY / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_formulas_become_mathml() -> None:
    pytest.importorskip("latex2mathml", reason="latex2mathml is not installed: make install")
    from tools.site_math import on_page_content

    made = on_page_content('<p><span class="arithmatex">\\(a &lt; b\\)</span> and $5</p>')
    assert "<math" in made
    assert made.endswith(" and $5</p>")
    assert "&lt;" in made or "&#x0003C;" in made


@each_document
def test_links_lead_somewhere(name: str) -> None:
    assert not list(broken_links(name, DOCUMENTS[name]))


def commands(text: str) -> list[list[str]]:
    """The words behind `tld` of each command in blocks of shell code."""
    lines = [
        line for code in blocks(text, *SHELL) for line in code.replace("\\\n", " ").splitlines()
    ]
    found = []
    for line in lines:
        if re.search(r"\btld ", line):
            found += list(commands_of(line.removeprefix("$ ")))
    return found


def commands_of(line: str) -> Iterator[list[str]]:
    """Commands of one line, which `&&` and the like may join, without the comment behind them."""
    reader = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
    reader.whitespace_split = True
    command: list[str] = []
    for word in [*reader, ";"]:
        if set(word) <= set("&|;<>"):
            if command[:1] == ["tld"]:
                yield command[1:]
            command = []
        else:
            command.append(word)


def parse_problem(words: list[str]) -> str | None:
    """What the command line would say of these words, without doing what they ask for."""
    if is_synopsis(words):
        return mention_problem(words)
    try:
        app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return f"tld {shlex.join(words)}: {error}"
    return None


def is_synopsis(words: list[str]) -> bool:
    return any(
        word.startswith(("[", "…")) or (word.endswith("]") and "=" not in word) for word in words
    )


def mention_problem(words: list[str]) -> str | None:
    """What is unknown in the beginning of a command: the command, one below it, or an option."""
    known: App = app
    rest = list(words)
    while rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]) and known.default_command is None:
        if rest[0] not in known:
            return f"tld {' '.join(words)}: no command {rest[0]}"
        known = known[rest.pop(0)]
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(rest)))
    if known.default_command is not None and options:
        options -= {
            name for option in known.assemble_argument_collection() for name in option.names
        }
    unknown = {option for option in options - {"--help"} if option not in known}
    return f"tld {' '.join(words)}: no option {', '.join(sorted(unknown))}" if unknown else None


def inline_code(text: str) -> list[str]:
    """What stands in backticks within sentences, on one line."""
    return [
        " ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", without_blocks(text))
    ]


def is_setting_like(code: str) -> bool:
    return (
        bool(re.fullmatch(r"[a-z]+(\.\w+)+", code))
        and code.partition(".")[0] in SECTIONS
        and not FILES.search(code)
    )


def is_setting(dotted: str) -> bool:
    model: Any = RunConfig
    for part in dotted.split("."):
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return model is not str  # a key of a mapping, as evaluate.require.prompt_accuracy
        if part not in model.model_fields:
            return False
        model = model.model_fields[part].annotation
    return True


def settings_of(code: str) -> list[str]:
    """Dotted names of the settings in a block of YAML; none if it is no configuration of a run."""
    tree = read_tree(code)
    if not isinstance(tree, dict) or not set(tree) & {*SECTIONS, "name", "root"}:
        return []
    return [
        f"{section}.{name}" if isinstance(values, dict) else section
        for section, values in tree.items()
        for name in (values if isinstance(values, dict) else [""])
    ]


def broken_links(name: str, text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)", without_blocks(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (REPOSITORY / name).parent / path if path else REPOSITORY / name
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as both mkdocs and GitHub name them."""
    text = page.read_text()
    if included := re.match(r'--8<-- "(.+)"', text):
        text = (REPOSITORY / included[1]).read_text()
    headings = re.findall(r"^#+ (.+)$", without_blocks(text), re.MULTILINE)
    plain = (
        re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "]", heading).lower()).strip()
        for heading in headings
    )
    return {re.sub(r"\s", "-", heading) for heading in plain} | set(
        re.findall(r'\bid="([^"]+)"', text)
    )
