from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import REPOSITORY
from tools.gpu_check.__main__ import main
from tools.gpu_check.report import Report, SectionReport
from tools.gpu_check.table import ROWS, markdown

FIGURES = {
    "train": {"compiled": {"ms": 120.0, "host_ms": 30.0, "share_of_bf16_peak": 0.446}},
    "sample": {"bf16": {"seconds": 0.2, "synchronizations": 0}, "decode_s": 0.05},
    "exactness": {"repeats_exactly": True, "resumes_exactly": False},
}
REPORT = Report(
    device="cuda",
    sections={name: SectionReport(values=values) for name, values in FIGURES.items()},
)


def figure_of(what: str) -> str:
    (row,) = [row for row in ROWS if row.what == what]
    return row.cells(REPORT)[-1]


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ("a training step, compiled", "120 ms"),
        ("a training step, eager", "not measured"),
        ("share of the bf16 matrix peak, compiled", "44.6% (missed)"),
        ("the host's share of a compiled step", "25%"),
        ("bf16 with decoding", "0.25 s"),
        ("waits for the GPU in sampling", "0"),
        ("two processes repeat a deterministic training exactly", "yes"),
        ("a resumed one ends with the same bits", "no (missed)"),
    ],
)
def test_figures_stand_beside_their_goals(what: str, shown: str) -> None:
    assert figure_of(what) == shown


def test_the_command_prints_the_table_of_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    REPORT.save(tmp_path)
    main(["--table", str(tmp_path / "gpu_check.json")])
    assert "| 120 ms |" in capsys.readouterr().out


def test_the_page_of_benchmarks_has_every_row() -> None:
    page = (REPOSITORY / "BENCHMARKS.md").read_text(encoding="utf-8")
    for line in markdown(None):
        what_estimate_goal = line.rpartition("|")[0].rpartition("|")[0]
        assert what_estimate_goal in page
