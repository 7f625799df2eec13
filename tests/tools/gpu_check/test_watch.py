"""A section that fails costs itself alone, and the report is whole at any time."""

from __future__ import annotations

from pathlib import Path

from tools.gpu_check.report import REPORT_FILE, Report, SectionReport
from tools.gpu_check.sections import Section
from tools.gpu_check.watch import LOG_FILE, Watch

LIMIT_S = 30.0


def section(name: str, limit_s: float = LIMIT_S) -> Section:
    return Section(f"tests.support.failing_sections:{name}", limit_s)


def test_sections_that_fail_cost_only_themselves(tmp_path: Path) -> None:
    sections = {
        "first": section("ends"),
        "second": section("ends"),
        "raises": section("raises"),
        "after_raises": section("ends"),
        "hangs": section("hangs", limit_s=1),
        "after_hangs": section("ends"),
        "is_killed": section("is_killed"),
        "is_missing": section("no_such_section"),
        "last": section("ends"),
    }
    on_disk: list[Report] = []

    def ended(name: str, _: SectionReport) -> None:
        text = (tmp_path / "out" / REPORT_FILE).read_text(encoding="utf-8")
        on_disk.append(Report.model_validate_json(text))
        assert list(on_disk[-1].sections)[-1] == name

    report = Watch(sections, "cpu", tmp_path / "out", ended).run(total_s=120)

    failed = {name for name, part in report.sections.items() if not part.ended}
    assert failed == {"raises", "hangs", "is_killed", "is_missing"}
    problems = {name: report.sections[name].problem for name in failed}
    assert "ValueError: the section cannot go on" in problems["raises"]
    assert problems["hangs"] == "no end within 1 s"
    assert problems["is_killed"] == "its process ended with -9"
    assert "no_such_section" in problems["is_missing"]
    for name in ("raises", "hangs", "is_killed"):
        assert report.figure(name, "device") == "cpu", "figures until then are kept"
    assert report.figure("first", "process") == report.figure("second", "process")
    assert report.figure("first", "process") != report.figure("after_raises", "process")
    assert [len(state.sections) for state in on_disk] == list(range(1, len(sections) + 1))
    assert on_disk[-1] == report
    assert {path.name for path in (tmp_path / "out").iterdir()} == {REPORT_FILE, LOG_FILE}


def test_what_no_time_is_left_for_is_listed(tmp_path: Path) -> None:
    sections = {"first": section("ends"), "hangs": section("hangs"), "last": section("ends")}
    report = Watch(sections, "cpu", tmp_path, lambda *_: None).run(total_s=4)
    assert report.sections["first"].ended
    assert report.sections["hangs"].problem == "the time of all sections was over"
    assert report.left_out == ["last"]
    text = (tmp_path / REPORT_FILE).read_text(encoding="utf-8")
    assert Report.model_validate_json(text) == report
