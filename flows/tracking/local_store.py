"""MLflow's record in a workspace: a SQLite file and a folder of artifacts, which may be moved and
copied with it.

MLflow stores absolute places. They are corrected when the record is opened, and no artifact is
written by their word.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from data_catalog.storage.workspace import Workspace

_LOCK_TIMEOUT_S = 20.0
# Every column in which MLflow keeps the place of an artifact.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)


class WorkspaceClient(MlflowClient):
    """A client of the record in a workspace. Artifacts go below the workspace, even if another
    process, which sees it at another path, corrects the places in the database meanwhile."""

    def __init__(self, root: Path) -> None:
        super().__init__(tracking_uri=sqlite_url(Workspace(root).mlflow_database.resolve()))
        self._artifacts = artifact_location(root)

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """Copy a file to a run's artifacts."""
        LocalArtifactRepository(f"{self._artifacts}/{run_id}/artifacts").log_artifact(  # type: ignore[no-untyped-call]
            local_path, artifact_path
        )

    def log_model_artifacts(
        self, model_id: str, local_dir: str, artifact_path: str | None = None
    ) -> None:
        """Copy a folder to a model's artifacts."""
        place = f"{self._artifacts}/models/{model_id}/artifacts"
        LocalArtifactRepository(place).log_artifacts(local_dir, artifact_path)  # type: ignore[no-untyped-call]


def artifact_location(root: Path) -> str:
    """The URI below which a workspace keeps artifacts."""
    return Workspace(root).mlflow_artifacts.resolve().as_uri()


def sqlite_url(path: Path) -> str:
    """The address of a database file. SQLAlchemy takes what follows a question mark for options,
    and urllib drops line breaks and tabs."""
    if any(character in str(path) for character in "?\r\n\t"):
        return f"sqlite+pysqlite:///file:{quote(str(path))}?uri=true"
    return f"sqlite:///{path}"


def check_file(database: Path) -> None:
    """Raise sqlite3.Error if a database is damaged, or locked for long. MLflow itself would try for
    minutes."""
    if database.is_file() and not database.stat().st_size:
        return
    if database.exists():
        with closing(_connect(database)) as connection:
            (told,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if told != "ok":
            raise sqlite3.DatabaseError(told)


def correct_places(root: Path) -> None:
    """Point MLflow's database at the artifacts of this workspace, after it was moved or copied.
    Experiments of ours lie directly in the folder of artifacts, so they tell its former place; what
    lies elsewhere stays there."""
    artifacts = Workspace(root).mlflow_artifacts
    here = artifact_location(root)
    with closing(_connect(Workspace(root).mlflow_database)) as connection:
        places = [
            place
            for (place,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments")
        ]
        former = [
            p
            for p in places
            if p and p.startswith("file:") and p.endswith(f"/{artifacts.name}") and p != here
        ]
        if not former:
            return
        with connection:
            for place in former:
                for table, column in _PLACES:
                    connection.execute(
                        f"UPDATE {table} SET {column} = :here || substr({column}, length(:there) + "
                        "1) "
                        f"WHERE {column} = :there OR substr({column}, 1, length(:there) + 1) = "
                        ":there || '/'",
                        {"here": here, "there": place},
                    )


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(database.resolve()))}?mode=rw", _LOCK_TIMEOUT_S, uri=True
    )
