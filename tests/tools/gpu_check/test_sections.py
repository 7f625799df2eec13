"""The command as a maintainer runs it, on a CPU, without the packages that a GPU machine lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import REPOSITORY
from tools.gpu_check.report import REPORT_FILE, Report
from tools.gpu_check.sections import SECTIONS

MISSING = ("cyclopts", "fastapi", "img2dataset", "imagehash", "mlflow", "prefect", "pywt", "ray")


def run(out: Path, *options: str) -> tuple[int, str, Report]:
    """Run it where importing one of MISSING fails, in child processes too."""
    site = out.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"import sys; sys.modules.update(dict.fromkeys({MISSING}))"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tools.gpu_check", "--out", str(out), "--device", "cpu", *options],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{site}:{REPOSITORY}"},
        capture_output=True,
        text=True,
        check=False,
    )
    report = Report.model_validate_json((out / REPORT_FILE).read_text(encoding="utf-8"))
    return done.returncode, done.stdout + done.stderr, report


def test_some_sections_are_measured(tmp_path: Path) -> None:
    code, text, report = run(tmp_path / "out", "--only", "environment,peaks")
    assert code == 0, text
    assert list(report.sections) == ["environment", "peaks"]
    assert report.figure("peaks", "memory_gb_per_s") > 0
    assert "| memory bandwidth |" in text


@pytest.mark.slow
def test_every_section_ends_with_figures(tmp_path: Path) -> None:
    code, text, report = run(tmp_path / "out", "--total-s", "500")
    assert code == 0, text
    assert list(report.sections) == list(SECTIONS)
    for name, section in report.sections.items():
        assert section.ended, f"{name}: {section.problem}"
        assert section.values, name
    assert report.figure("train", "eager", "images_per_s") > 0
    assert report.figure("train", "compiled", "images_per_s") > 0
    assert report.figure("train", "eager_with_checkpoint_blocks", "images_per_s") > 0
    assert report.figure("exactness", "second", "resumed_at") == 3
    assert report.figure("exactness", "resumes_exactly")
    assert report.figure("exactness", "repeats_exactly")
    assert report.figure("distributed", "losses_agree")
    assert report.figure("encode", "over_bare_encoders") > 0
    assert report.figure("sample", "bf16", "largest_levels") > 0
    assert "failed" not in text
