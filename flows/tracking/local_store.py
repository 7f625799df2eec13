"""The MLflow database and artifacts in a workspace, which may be moved or copied.

MLflow stores absolute paths. They are corrected when the database is opened, and no artifact is
written to a path that is only stored there.
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
# Every column in which MLflow stores the path of an artifact.
_PATH_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)


class WorkspaceClient(MlflowClient):
    """A client of the MLflow database in a workspace. Artifacts are written below the workspace,
    even if another process that sees it at another path corrects the stored paths meanwhile."""

    def __init__(self, root: Path) -> None:
        super().__init__(tracking_uri=sqlite_url(Workspace(root).mlflow_database.resolve()))
        self._artifacts = artifact_location(root)

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """Copy a file to a run's artifacts."""
        uri = f"{self._artifacts}/{run_id}/artifacts"
        repository = LocalArtifactRepository(uri)
        repository.log_artifact(local_path, artifact_path)  # type: ignore[no-untyped-call]

    def log_model_artifacts(
        self, model_id: str, local_dir: str, artifact_path: str | None = None
    ) -> None:
        """Copy a folder to a model's artifacts."""
        uri = f"{self._artifacts}/models/{model_id}/artifacts"
        repository = LocalArtifactRepository(uri)
        repository.log_artifacts(local_dir, artifact_path)  # type: ignore[no-untyped-call]


def artifact_location(root: Path) -> str:
    """The URI of a workspace's artifacts."""
    return Workspace(root).mlflow_artifacts.resolve().as_uri()


def sqlite_url(path: Path) -> str:
    """The URL of a database file. It is quoted where needed, because SQLAlchemy reads options after
    a question mark, and urllib drops line breaks and tabs."""
    if any(character in str(path) for character in "?\r\n\t"):
        return f"sqlite+pysqlite:///file:{quote(str(path))}?uri=true"
    return f"sqlite:///{path}"


def check_file(database: Path) -> None:
    """Raise sqlite3.Error if a database is damaged, or stays locked. MLflow itself would retry for
    minutes."""
    if database.is_file() and not database.stat().st_size:
        return
    if database.exists():
        with closing(_connect(database)) as connection:
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if result != "ok":
            raise sqlite3.DatabaseError(result)


def correct_paths(root: Path) -> None:
    """Point MLflow's database at the artifacts of this workspace, after it was moved or copied.
    Experiments of tld are directly in the folder of artifacts, so their paths show its former path.
    Artifacts that are elsewhere stay there."""
    artifacts = Workspace(root).mlflow_artifacts
    here = artifact_location(root)
    with closing(_connect(Workspace(root).mlflow_database)) as connection:
        rows = connection.execute("SELECT DISTINCT artifact_location FROM experiments")
        former = [
            uri
            for (uri,) in rows.fetchall()
            if uri
            and uri.startswith("file:")
            and uri.endswith(f"/{artifacts.name}")
            and uri != here
        ]
        if not former:
            return
        with connection:
            for uri in former:
                for table, column in _PATH_COLUMNS:
                    connection.execute(
                        f"UPDATE {table} "
                        f"SET {column} = :here || substr({column}, length(:former) + 1) "
                        f"WHERE {column} = :former "
                        f"OR substr({column}, 1, length(:former) + 1) = :former || '/'",
                        {"here": here, "former": uri},
                    )


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(database.resolve()))}?mode=rw", timeout=_LOCK_TIMEOUT_S, uri=True
    )
