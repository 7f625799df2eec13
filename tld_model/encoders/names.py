"""Names, folders and identities of encoders, including those that ship with the project."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_SHIPPED = Path(__file__).parents[1] / "demo_encoders"
SHIPPED_ENCODERS = {
    "shapes-vae": _SHIPPED / "vae",
    "shapes-clip": _SHIPPED / "clip",
    "shapes-clip-short": _SHIPPED / "clip-short",
    "emoji-vae": _SHIPPED / "emoji-vae",
}

_REVISION = re.compile(r"[\w.-]+", re.ASCII)

POOLING_FILE = "1_Pooling/config.json"  # how a sentence encoder makes one vector of a caption


def encoder_folder(name_or_path: str) -> Path | None:
    """The local folder of an encoder, or None for a name on the Hugging Face hub."""
    if name_or_path in SHIPPED_ENCODERS:
        return SHIPPED_ENCODERS[name_or_path]
    folder = Path(name_or_path).expanduser()
    return folder if folder.is_dir() else None


def split_revision(name: str) -> tuple[str, str | None]:
    """The name of a model on the Hugging Face hub, and its revision (commit, tag or branch) if it
    is given, as in owner/name@revision. Raises ValueError if this cannot be a revision."""
    name, at, revision = name.partition("@")
    if at and not _REVISION.fullmatch(revision):
        raise ValueError(
            f"{revision!r} is no revision: write {name}@ and the commit, the tag or the branch, "
            "without a slash"
        )
    return name, revision or None


def encoder_identity(name_or_path: str) -> str:
    """The identity of an encoder: the SHA-256 of its files if it is in a local folder, or else its
    name, with the revision if the name has one."""
    folder = encoder_folder(name_or_path)
    if folder is None:
        return name_or_path
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in (".json", ".txt", ".safetensors", ".bin", ".model")
    )
    if (pooling := folder / POOLING_FILE).is_file():
        files.append(pooling)
    lines = (f"{path.relative_to(folder)} {_digest(path)}" for path in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
