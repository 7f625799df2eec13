"""MLflow's record of a workspace in a test, whose empty database is made once."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from flows.tracking.store import open_client


@cache
def _empty() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        open_client(Path(folder))
        return (Path(folder) / "mlflow.db").read_bytes()


def new_record(root: Path) -> Path:
    """A workspace with an empty record, which would take seconds to make."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "mlflow.db").write_bytes(_empty())
    return root
