"""Lineage of an output: the outputs that it was made from."""

from __future__ import annotations

from collections.abc import Iterator

from data_catalog.storage.manifest import Manifest, ManifestError, read_manifest_alone
from data_catalog.storage.workspace import Workspace


def ancestors(encodings: Manifest, model: Manifest) -> Iterator[Manifest]:
    """The outputs that a report was made from, in stage order. The images are included only if they
    are in the same workspace."""
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
