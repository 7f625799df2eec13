"""Options of `tld export` that do not fit: all are reported at once, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli.export import export
from flows.terminal.errors import UserError
from tests.support.small import TINY


def test_options_that_do_not_fit_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        export(TINY, push="stars", space="me/a b", license_name="MIT License")
    for problem in ("--push: 'stars' is not OWNER/NAME", "--space: Repo id must use", "--license:"):
        assert problem in str(refused.value)
    with pytest.raises(UserError) as refused:
        export(TINY, to="safetensors", space="me/app", public=True)
    for problem in (
        "--out: say where to write",
        "--space: the app loads the model from the hub; name its repository with --push",
        "--public is for what --push creates",
    ):
        assert problem in str(refused.value)
    with pytest.raises(UserError) as refused:
        export(TINY, to="safetensors", push="me/a", license_name="mit", out=tmp_path / "a.bin")
    for problem in ("--push: a repository has the folder", "--license is for the model card"):
        assert problem in str(refused.value)
    assert "--out must end in .safetensors" in str(refused.value)
