"""Lineage of an output: the outputs that it was made from."""

from __future__ import annotations

from collections.abc import Iterator

from data_catalog.storage.manifest import Manifest, ManifestError, read_manifest_alone
from data_catalog.storage.workspace import Workspace


def ancestors(encodings: Manifest, model: Manifest) -> Iterator[Manifest]:
    """The outputs that a report was made from, each after those that it was made from. Those before
    the encodings, and before the model that this one began with or was distilled from, are included
    only if they are in the same workspace."""
    workspace, seen = Workspace(encodings.folder.parents[1]), set[str]()
    for output in _ancestors(workspace, encodings, model):
        if output.fingerprint not in seen:
            seen.add(output.fingerprint)
            yield output


def _ancestors(workspace: Workspace, encodings: Manifest, model: Manifest) -> Iterator[Manifest]:
    for former in _parent(workspace, model, "train"):
        for its_encodings in _parent(workspace, former, "encode"):
            yield from _ancestors(workspace, its_encodings, former)
        yield former
    yield from _parent(workspace, encodings, "download")
    yield encodings
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
