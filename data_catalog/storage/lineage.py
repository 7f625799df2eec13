"""Lineage of an output: the outputs that it was made from, and all outputs of a stage."""

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
    if former := parent(workspace, model, "train"):
        if its_encodings := parent(workspace, former, "encode"):
            yield from _ancestors(workspace, its_encodings, former)
        yield former
    if images := parent(workspace, encodings, "download"):
        yield images
    yield encodings
    yield model


def parent(workspace: Workspace, output: Manifest, name: str) -> Manifest | None:
    """The parent of an output with this name, as its manifest has it, if it has one that can be
    read."""
    digest, stage = output.parents.get(name), name.partition(" ")[0]
    return next((one for one in finished_outputs(workspace, stage) if one.digest == digest), None)


def finished_outputs(workspace: Workspace, stage: str) -> Iterator[Manifest]:
    """The finished outputs of a stage whose manifest can be read, in the order of their names.
    Their files are not checked."""
    for path in sorted(workspace.outputs(stage).glob("*/manifest.json")):
        try:
            output = read_manifest_alone(path.parent)
        except (ManifestError, PermissionError):  # damaged, or of another user
            continue
        if output:
            yield output
