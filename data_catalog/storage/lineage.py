"""Lineage of an output: the outputs that it was made from."""

from __future__ import annotations

from collections.abc import Iterator

from data_catalog.storage.manifest import Manifest, ManifestError, read_manifest_alone
from data_catalog.storage.workspace import Workspace


def ancestors(encodings: Manifest, model: Manifest) -> Iterator[Manifest]:
    """The outputs that a report was made from, in stage order. The images, and the teacher of a
    distilled model, are included only if they are in the same workspace."""
    workspace = Workspace(encodings.folder.parents[1])
    yield from _parent(workspace, encodings, "download")
    yield encodings
    yield from _parent(workspace, model, "train")
    yield model


def _parent(workspace: Workspace, output: Manifest, stage: str) -> Iterator[Manifest]:
    """The parent of an output at a stage, if it has one that can be read."""
    for path in sorted(workspace.outputs(stage).glob("*/manifest.json")):
        try:
            parent = read_manifest_alone(path.parent)
        except ManifestError:
            continue
        if parent and parent.digest == output.parents.get(stage):
            yield parent
            return
