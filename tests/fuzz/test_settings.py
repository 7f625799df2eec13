"""Damaged config files and absurd settings: a run as it was described, or every mistake in
words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from tests.support.command import REPOSITORY
from tests.support.fuzz import bounded_memory, check_explained, damaged, refused_only_by, run_tld

_CONFIGS = [
    (REPOSITORY / "conf" / name).read_bytes()
    for name in (
        "tiny.yaml",
        "short-prompts.yaml",
        "emoji.yaml",
        "tld-100m.yaml",
        "original-100m.yaml",
        "modern-250m.yaml",
    )
]
_ODD = [
    *(
        "",
        " ",
        "null",
        "~",
        "[]",
        "{}",
        "[1",
        "a: b",
        "-1",
        "0",
        "1e999",
        "-.inf",
        ".nan",
        "0x10",
        "1_0",
        "12:30",
    ),
    *(
        "yes",
        "no",
        "2024-01-01",
        "3e-4",
        "0.1",
        "9" * 400,
        "[" * 2000,
        "{a: " * 500,
        "\x00",
        "\ud83d",
        "\x1b[31m",
    ),
    *(
        "~/x",
        "$HOME/x",
        "$NOT_SET/x",
        "/",
        "..",
        "s3://",
        "file:///etc/passwd",
        "[/b]",
        "=",
        "a=b",
        "!!python/name:os",
    ),
    *("&a [*a, *a]", "10000000000", "1e308", "-0", "true", "'", '"', "|", "%", "@", "\u202e", "星"),
]


def _settings(model: type[BaseModel], before: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        inner = isinstance(kind, type) and issubclass(kind, BaseModel)
        names += _settings(kind, f"{before}{name}.") if inner else [before + name]  # type: ignore[arg-type]
    return names


_value = st.one_of(
    st.sampled_from(_ODD),
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.binary().map(repr),
)
_override = st.one_of(
    st.builds(
        "{}={}".format,
        st.sampled_from([*_settings(RunConfig), "train", "engine", "nothing"]),
        _value,
    ),
    st.text(max_size=30),
)


@given(overrides=st.lists(_override, min_size=1, max_size=5))
def test_any_setting_is_taken_or_refused_in_words(overrides: list[str]) -> None:
    with bounded_memory(400), refused_only_by(ConfigError):
        config = load_config(REPOSITORY / "conf" / "tiny.yaml", overrides)
        again = RunConfig.model_validate(config.model_dump(mode="json"))
        assert again.model_dump(exclude={"cache"}) == config.model_dump(exclude={"cache"})
        assert again.cache.folder == config.cache.folder.expanduser()


@given(
    overrides=st.lists(_override, min_size=1, max_size=3),
    command=st.sampled_from(["config", "status", "download"]),
)
def test_commands_explain_any_setting(
    overrides: list[str], command: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    words = [word for word in overrides if "=" in word and not word.startswith(("root", "-"))]
    plan = ["--plan"] if command == "download" else []
    root = tmp_path_factory.getbasetemp() / "nowhere"
    check_explained(run_tld(command, REPOSITORY / "conf/tiny.yaml", *words, f"root={root}", *plan))


@given(content=st.sampled_from(_CONFIGS).flatmap(damaged))
def test_commands_explain_any_config_file(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(content)
    with bounded_memory(400):
        check_explained(run_tld("config", path))
    assert not Path("~").exists()
