"""What an output was made from, and that from what."""

from __future__ import annotations

from collections.abc import Iterator

from data_catalog.storage.manifest import Manifest, ManifestError, read_manifest_alone
from data_catalog.storage.workspace import Workspace


def ancestors(encodings: Manifest, model: Manifest) -> Iterator[Manifest]:
    """What the report was made from, in order of the journey; the images where they are in the same
    workspace."""
    for path in sorted(
        Workspace(encodings.folder.parents[1]).outputs("download").glob("*/manifest.json")
    ):
        try:
            images = read_manifest_alone(path.parent)
        except ManifestError:
            continue
        if images and images.digest == encodings.parents.get("download"):
            yield images
            break
    yield encodings
    yield model
