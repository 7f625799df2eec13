"""A user's mistakes: one clear message, no traceback, exit code 2, before any work."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from pipeline.config.config_file import shipped_configs
from pipeline.stages.dag import STAGES
from tests.support.command import ENVIRONMENT, tld
from tests.support.small import TINY, small
from tests.support.workspace import make_workspace, overrides

REAL = "url,caption\nhttp://127.0.0.1:9/1.jpg,one\n"


def check(root: Path, says: str, *arguments: str | Path) -> None:
    done = tld(*arguments)
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert says in output
    assert "Traceback" not in output
    assert "canary" not in output
    assert not root.exists(), "no work before the message"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("download.urlz=x", "download.urlz: no such setting; did you mean 'urls'?"),
        ("train.steps=many", "got 'many'"),
        ("train.lr=-1", "train.lr: Input should be greater than 0, got -1"),
        ("model.patch_size=3", "patch_size 3 does not divide latent_size 8"),
        ("model.latent_size=16", "model.latent_size: is 16, but the encoders produce 8"),
        ("model.text_dim=768", "set model.text_dim=64"),
        ("download.urls=/no/such/table.csv", "no URL table at /no/such/table.csv"),
        (
            "download.urls=zip://t.csv::/no/such.zip?key=canary",
            "download.urls: URL table zip://t.csv::/no/such.zip?key=***",
        ),
        ("root=s3://me:canary@bucket/x", "root: the URL contains a user, a password or a query"),
        ("root=s3://bucket/x?token=canary", "root: the URL contains a user, a password or a query"),
        ("encode.vae=/no/such/vae", "'/no/such/vae' is neither a folder, nor"),
        ("download.image_size=60", "not a multiple of 8"),
        ("train.device=cuda:9", "no device 'cuda:9' on this machine"),
        ("root=/proc/tld", "cannot write to /proc"),
        ("evaluate.require={beauty: 1}", "no such score"),
        (
            "evaluate.guidance_interval=[0.8, 0.2]",
            "give two noise levels between 0 and 1, the lower first",
        ),
        (
            "evaluate.solver=eular",
            "evaluate.solver: Input should be 'dpmpp_2m', 'unipc', 'heun', 'euler' or 'ddim', got 'eular'",
        ),
        ("model.cross_attention_heads=5", "cross_attention_heads 5 does not divide width 64"),
        (
            "model={blocks: joint, norm: post}",
            "model: blocks=joint does not go with norm=post; leave that out, or set blocks=original",
        ),
    ],
)
def test_a_setting_that_cannot_work(tmp_path: Path, override: str, says: str) -> None:
    root = tmp_path / "data"
    check(root, says, "run", TINY, *small(root), override)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        (REAL.replace("caption", "text"), "no column 'caption'; its columns are 'url', 'text'"),
        (REAL + "a,b,c,d\n", "cannot be parsed as csv"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, content: str, says: str) -> None:
    table, root = tmp_path / "urls.csv", tmp_path / "data"
    table.write_text(content)
    check(root, says, "run", TINY, *small(root), f"download.urls={table}")


def test_compiling_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "CXX", "/no/such/compiler")
    root = tmp_path / "data"
    check(
        root, "train.compile: needs a C++ compiler", "run", TINY, *small(root), "train.compile=true"
    )


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    root = tmp_path / "data"
    mistakes = ["download.urls=/gone.csv", "encode.clip=./gone", "model.latent_channels=8"]
    for says in (
        "no URL table at /gone.csv",
        "encode.clip: './gone'",
        "set model.latent_channels=4",
    ):
        check(root, says, "run", TINY, *small(root), *mistakes)


def test_a_missing_config_an_unknown_stage_and_an_unknown_command(tmp_path: Path) -> None:
    root = tmp_path / "data"
    check(root, "no config file at gone.yaml", "run", "gone.yaml")
    check(root, "trian", "run", TINY, *small(root), "--until", "trian")
    check(root, "trian", "trian", TINY)
    check(root, "run needs CONFIG: Settings of the run", "run")


def test_a_stage_without_its_input_says_which_command_makes_it(tmp_path: Path) -> None:
    root = tmp_path / "data"
    spaced = tmp_path / "my runs.yaml"
    spaced.write_bytes(TINY.read_bytes())
    typed = shlex.join([str(spaced), *small(root)])
    check(root, f"tld run {typed} --until encode", "train", spaced, *small(root))
    check(
        root,
        "cannot train: the output of encode for these settings is missing",
        "train",
        TINY,
        *small(root),
    )
    check(
        root,
        "no model has been trained with these settings",
        "sample",
        TINY,
        "a star",
        *small(root),
    )
    check(root, "no model has been trained with these settings", "serve", TINY, *small(root))


def test_help_and_config_teach() -> None:
    output = tld("--help").stdout
    for command in (*STAGES, "run", "sample", "serve", "status", "config", "catalog", "ui"):
        assert command in output
    help_of_run = " ".join(tld("run", "--help").stdout.replace("│", " ").split())
    assert ", ".join(shipped_configs()) in help_of_run
    shown = tld("config", TINY, "train.lr=0.5").stdout
    assert "lr: 0.5" in shown
    assert "shapes" in tld("catalog", "list").stdout


@pytest.mark.slow
def test_figures_that_do_not_fit_name_the_manifest_and_what_to_run(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make_workspace(root)
    (path,) = root.glob("02_encodings/*/manifest.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["figures"]["encoders"]["vae"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    done = tld("run", TINY, *overrides(root))
    assert done.returncode == 2, done.stderr
    assert f"{path} is damaged (figures.encoders.vae: Field required)" in done.stderr
    assert "`tld encode … --force`" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
