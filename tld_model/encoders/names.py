"""Names, folders and identities of encoders, including those that ship with the project."""

from __future__ import annotations

import hashlib
from pathlib import Path

_SHIPPED = Path(__file__).parents[1] / "demo_encoders"
SHIPPED_ENCODERS = {
    "shapes-vae": _SHIPPED / "vae",
    "shapes-clip": _SHIPPED / "clip",
    "shapes-clip-short": _SHIPPED / "clip-short",
    "emoji-vae": _SHIPPED / "emoji-vae",
}

POOLING_FILE = "1_Pooling/config.json"  # how a sentence encoder makes one vector of a caption


def encoder_folder(name_or_path: str) -> Path | None:
    """The local folder of an encoder, or None for a name on the Hugging Face hub."""
    if name_or_path in SHIPPED_ENCODERS:
        return SHIPPED_ENCODERS[name_or_path]
    folder = Path(name_or_path).expanduser()
    return folder if folder.is_dir() else None


def encoder_identity(name_or_path: str) -> str:
    """The identity of an encoder: the SHA-256 of its files if it is in a local folder, or else its
    name."""
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
