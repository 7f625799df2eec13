"""The report, which is written anew after each section: FOLDER/gpu_check.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from data_catalog.storage.files import write_atomically

REPORT_FILE = "gpu_check.json"


class SectionReport(BaseModel):
    """What a section found."""

    model_config = ConfigDict(extra="forbid")

    values: dict[str, Any] = {}
    """Its figures by name."""
    seconds: float = 0.0
    problem: str = ""
    """Why it did not end, or "". The values are those that it had until then."""
    ended: bool = False


class Report(BaseModel):
    """What all sections found."""

    model_config = ConfigDict(extra="forbid")

    device: str
    sections: dict[str, SectionReport] = {}
    left_out: list[str] = []
    """Sections for which no time was left."""

    def figure(self, section: str, *names: str) -> Any:
        """A figure by the names that lead to it, or None."""
        value: Any = self.sections[section].values if section in self.sections else None
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def save(self, out: Path) -> None:
        """Write it, so that a kill leaves this report or the one before."""
        write_atomically(out / REPORT_FILE, self.model_dump_json(indent=1) + "\n")
