"""Verification of a run's outputs: compare files with their digests, invalidate damaged shards.

The stages, when they run again, repeat only the invalidated shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from data_catalog.storage.cached_files import discard, refetch
from data_catalog.storage.manifest import (
    Manifest,
    ManifestError,
    content_digest,
    read_manifest_alone,
)
from data_catalog.storage.receipts import (
    MANIFEST_NAME,
    Shard,
    invalidate_shard,
    is_evicted,
    receipt_path,
)
from data_catalog.storage.workspace import StageName
from pipeline.stages.dag import parents_among
from pipeline.stages.integrity import damage_of
from pipeline.stages.remote_workspace import sync_listing
from pipeline.stages.run_inputs import RunInputs, StageRun


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that has changed since it was finished."""

    stage: str
    path: Path
    problem: str
    shard: Shard | None  # None if the manifest itself is damaged
    images: Manifest | None = None  # of its phase


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of verifying the outputs of a run."""

    files: int
    bytes: int
    released: int  # files deleted on purpose (encode.keep_images)
    outputs: dict[str, Manifest]  # by stage, and phase if there are several
    damages: tuple[Damage, ...]
    stages: tuple[StageName, ...]  # of the run, in its order

    @property
    def last_damaged_stage(self) -> StageName | None:
        """The last stage that must run again for the repair, in the order of the run."""
        damaged = {damage.stage for damage in self.damages}
        return next((stage for stage in reversed(self.stages) if stage in damaged), None)


def verify(inputs: RunInputs) -> Verified:
    """Read all files of this run's finished stages. Unfinished stages have nothing to verify."""
    sync_listing(inputs.config)
    outputs: dict[str, Manifest] = {}
    damages: list[Damage] = []
    before, earlier = dict[str, Manifest](), dict[str, dict[str, Manifest]]()
    for phase in inputs.chain:
        in_phase = {name: before[name] for name in before if phase.shares(name)}
        for spec in phase.stages.values():
            if spec.name in in_phase:
                continue
            try:
                parents = parents_among(spec, in_phase, earlier)
            except KeyError:  # one is not finished
                continue
            manifest = _read(phase.stage_run(spec.name, parents), damages)
            if manifest:
                in_phase[spec.name] = manifest
                outputs[f"{spec.name} {phase.config.phase or ''}".rstrip()] = manifest
                damages += _damaged(manifest, in_phase["download"])
        before = earlier[phase.config.phase or ""] = in_phase

    records = [
        (o.folder, name, record)
        for o in outputs.values()
        for s in o.shards
        for name, record in s.files.items()
    ]
    released = sum(is_evicted(folder, name) for folder, name, _ in records)
    total = sum(record.bytes for _, _, record in records)
    stages = tuple(spec.name for spec in inputs.stages.values())
    return Verified(len(records), total, released, outputs, tuple(damages), stages)


def _read(run: StageRun, damages: list[Damage]) -> Manifest | None:
    """The manifest of an output, or None if it is not finished or is damaged, which is added to
    `damages`."""
    try:
        manifest = read_manifest_alone(run.folder)
        if manifest and content_digest(manifest.shards) != manifest.digest:
            raise ManifestError("its digest does not match its shards")
    except ManifestError as error:
        path = run.folder / MANIFEST_NAME
        damages.append(Damage(run.spec.name, path, str(error), None))
        return None
    return manifest


def _damaged(manifest: Manifest, images: Manifest) -> Iterator[Damage]:
    for shard in manifest.shards:
        receipt = receipt_path(manifest.folder, shard.name)
        if receipt.exists() and not _agrees(receipt, shard):
            yield Damage(manifest.stage, receipt, "does not match the manifest", shard, images)
        for name, record in shard.files.items():
            if is_evicted(manifest.folder, name) or not (
                problem := damage_of(manifest.file(name), record)
            ):
                continue
            if not refetch(manifest.file(name)) or (
                problem := damage_of(manifest.file(name), record)
            ):
                yield Damage(manifest.stage, manifest.file(name), problem, shard, images)


def _agrees(receipt: Path, shard: Shard) -> bool:
    """Whether a receipt agrees with the manifest's entry of the shard, which may contain more:
    duplicates that were found later."""
    try:
        stored = Shard.model_validate_json(receipt.read_bytes())
    except ValidationError:
        return False
    return shard.digest.startswith(stored.digest) and stored.files.items() <= shard.files.items()


def forget_damaged(verified: Verified) -> None:
    """Invalidate the damaged shards and no others, so that the stages repeat only those. Image
    shards that were evicted after encoding are invalidated too if their encodings need them
    again."""
    for damage in verified.damages:
        if damage.shard is None:
            discard([damage.path])
            continue
        invalidate_shard(damage.path.parent, damage.shard)
        if damage.stage == "encode" and damage.images:
            _invalidate_if_evicted(damage.images, damage.shard.name)


def _invalidate_if_evicted(images: Manifest, name: str) -> None:
    """Invalidate an image shard whose files were evicted."""
    for shard in images.shards:
        if shard.name == name and any(is_evicted(images.folder, file) for file in shard.files):
            invalidate_shard(images.folder, shard)


def changed_stages(before: Verified, after: Verified) -> Iterable[str]:
    """Stages whose content differs after the repair, for example because the web has changed."""
    return [
        name
        for name, old in before.outputs.items()
        if name in after.outputs and after.outputs[name].digest != old.digest
    ]
