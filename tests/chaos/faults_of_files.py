"""Files that are not what they were: a flipped bit, a cut, nothing left; where nobody reads them,
and where the next stage is about to read them."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from data_catalog.storage.workspace import OUTPUT_FOLDERS
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.faults import Tell, Victim, kill_driver


def flipped(content: bytes) -> bytes:
    """One bit, in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(_: bytes) -> bytes:
    return b""


def other_digest(content: bytes) -> bytes:
    """A manifest with one flipped bit in its own digest: still good JSON."""
    at = content.index(b'"digest": "') + len(b'"digest": "')
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def damage(victim: Victim, pattern: str, how: Callable[[bytes], bytes]) -> None:
    (path,) = victim.root.glob(pattern)
    path.write_bytes(how(path.read_bytes()))


_SHARDS = {
    "images": ("01_images/*/00000.tar", "01_images/*/00001.tar", "these two shards"),
    "encodings": ("02_encodings/*/00000.npz", "02_encodings/*/00001.parquet", "these two shards"),
    "report": ("04_report/*/grid.png", "04_report/*/report.html", "the report"),
}


@pytest.mark.parametrize("what", list(_SHARDS))
def test_cut_and_empty_files(
    tell: Tell, prefect: dict[str, str], victim: Victim, undisturbed: Victim, what: str
) -> None:
    one, other, costs = _SHARDS[what]
    victim = Victim(victim.root, prefect).copy_from(undisturbed, None)
    damage(victim, one, cut)
    damage(victim, other, emptied)
    seen = victim.run()
    tell(f"{what}: a cut file and an empty one", seen, costs)
    seen.ended_with(0)
    assert victim.digests() == undisturbed.digests()


@pytest.mark.parametrize("how", [cut, emptied])
@pytest.mark.parametrize("what", ["model", "manifest"])
def test_cut_or_empty_file(
    tell: Tell,
    prefect: dict[str, str],
    victim: Victim,
    undisturbed: Victim,
    what: str,
    how: Callable[[bytes], bytes],
) -> None:
    victim = Victim(victim.root, prefect).copy_from(undisturbed, None)
    damage(
        victim,
        {"model": "03_model/*/denoiser.safetensors", "manifest": "02_encodings/*/manifest.json"}[
            what
        ],
        how,
    )
    seen = victim.run()
    costs = {
        "model": "its writing, from the last checkpoint",
        "manifest": "its writing, from the shards' receipts",
    }
    tell(f"{what}: {how.__name__}", seen, costs[what])
    seen.ended_with(0)
    assert victim.digests() == undisturbed.digests()


_FLIPPED = {
    "images": ("01_images/*/00001.tar", "this shard"),
    "encodings": ("02_encodings/*/00001.npz", "this shard"),
    "model": ("03_model/*/denoiser.safetensors", "its writing, from the last checkpoint"),
}


@pytest.mark.parametrize("what", list(_FLIPPED))
def test_flipped_bit_in_a_finished_run(
    tell: Tell, prefect: dict[str, str], victim: Victim, undisturbed: Victim, what: str
) -> None:
    """A run looks at sizes; `tld catalog verify` reads every byte."""
    pattern, costs = _FLIPPED[what]
    victim = Victim(victim.root, prefect).copy_from(undisturbed, None)
    damage(victim, pattern, flipped)
    victim.run().ended_with(0)
    seen = victim.run("catalog verify")
    tell(f"{what}: a flipped bit, found by tld catalog verify", seen, costs)
    seen.ended_with(1, "has other content than when it was finished")
    assert "--repair" in seen.told
    victim.run("catalog verify", "--repair").ended_with(0, "damaged: ")
    victim.run().ended_with(0)
    assert victim.digests() == undisturbed.digests()


@pytest.mark.parametrize(
    ("what", "stage"),
    [("images", "encode"), ("encodings", "train"), ("model", "evaluate")],
)
def test_flipped_bit_before_the_next_stage(
    tell: Tell, prefect: dict[str, str], victim: Victim, undisturbed: Victim, what: str, stage: str
) -> None:
    """What would be made of a damaged file would count as whole."""
    pattern, costs = _FLIPPED[what]
    victim = Victim(victim.root, prefect).copy_from(undisturbed, stage)
    damage(victim, pattern, flipped)
    seen = victim.run()
    tell(f"{what}: a flipped bit, before {stage}", seen, costs)
    seen.ended_with(
        2,
        "has other content than when it was finished; repair it with `tld catalog verify … --repair`",
    )
    victim.run("catalog verify", "--repair").ended_with(0, "damaged: ")
    victim.run().ended_with(0)
    assert victim.digests() == undisturbed.digests()


def test_flipped_bit_in_the_digest_of_a_manifest(
    tell: Tell, prefect: dict[str, str], victim: Victim, undisturbed: Victim
) -> None:
    """The next stages take it for other encodings, and are made again under another name; verify
    finds it."""
    victim = Victim(victim.root, prefect).copy_from(undisturbed, None)
    damage(victim, "02_encodings/*/manifest.json", other_digest)
    seen = victim.run()
    seen.ended_with(0)
    told = stage_statuses(RunInputs(victim.config))["encode"].manifest
    assert told
    if told.digest != undisturbed.digests()["encode"]:
        seen = victim.run("catalog verify")
        seen.ended_with(1, "its digest does not match its shards")
        victim.run("catalog verify", "--repair").ended_with(0, "damaged: ")
    tell("manifest: a flipped bit in its digest", seen, "all stages after it, under another name")
    victim.run().ended_with(0)
    assert victim.digests() == undisturbed.digests()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, undisturbed: Victim) -> Victim:
    """A run that was killed in the middle of its training, with two checkpoints."""
    victim = Victim(tmp_path_factory.mktemp("stopped") / "data").copy_from(undisturbed, "train")
    kill_driver(victim.begin_until("train", enough=2)).ended_with(-9)
    return victim


@pytest.mark.parametrize("how", [flipped, cut, emptied])
def test_damaged_checkpoint(
    tell: Tell,
    prefect: dict[str, str],
    victim: Victim,
    stopped: Victim,
    undisturbed: Victim,
    how: Callable[[bytes], bytes],
) -> None:
    victim = Victim(victim.root, prefect)
    for name in ("download", "encode", "train"):
        shutil.copytree(stopped.root / OUTPUT_FOLDERS[name], victim.root / OUTPUT_FOLDERS[name])
    newest = max(victim.root.glob("03_model/*/checkpoints/step-*.pt"))
    newest.write_bytes(how(newest.read_bytes()))
    seen = victim.run()
    tell(f"newest checkpoint: {how.__name__}", seen, "the steps since the one before")
    seen.ended_with(0, f"{newest.name} is damaged")
    assert "resuming from step" in seen.told
    assert victim.digests() == undisturbed.digests()
