"""A run whose last phase mixes in the images of the first, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import snapshot, tld
from tests.support.small import TINY, small
from tests.support.waiting import kill_when

pytestmark = pytest.mark.slow

PHASES = (
    "phases.few.download={limit: 40, jpeg_quality: 90}",
    "phases.few.train={steps: 40, checkpoint_every: 2, mix: {first: 0.3, few: 0.7}}",
)


def words(root: Path, *more: str) -> list[str | Path]:
    return [TINY, *small(root, train__held_out_fraction=0.2), *PHASES, *more]


def states(root: Path, *more: str) -> dict[str, str]:
    done = tld("status", *words(root, *more), "--json")
    assert done.returncode == 0, done.stderr
    return {f"{row['stage']} {row['phase']}": row["state"] for row in json.loads(done.stdout)}


def test_a_mix_survives_a_kill_and_follows_the_encodings_it_is_made_of(tmp_path: Path) -> None:
    root = tmp_path / "data"

    def mix_trains() -> bool:
        models = [path.parent for path in root.glob("03_model/*/manifest.json")]
        checkpoints = root.glob("03_model/*/checkpoints/step-*.pt")
        return len(models) == 1 and any(path.parents[1] not in models for path in checkpoints)

    kill_when(mix_trains, "run", *words(root))
    assert states(root)["train few"] == "interrupted"
    done = tld("run", *words(root))
    assert done.returncode == 0, done.stderr
    before = snapshot(root)
    again = tld("run", *words(root))
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("fresh:") == 7
    assert snapshot(root) == before

    stored = [json.loads(path.read_text()) for path in root.glob("03_model/*/manifest.json")]
    first, few = sorted(stored, key=lambda manifest: str(manifest["made_at"]))
    assert few["parents"].keys() == {"encode", "encode first", "train"}
    assert few["parents"]["encode first"] == first["parents"]["encode"]
    assert few["parents"]["train"] == first["digest"]
    assert few["figures"]["mix"]["first"]["drawn_pairs"] == 192  # 0.3 of 40 batches of 16

    card = tmp_path / "exported"
    done = tld("export", *words(root), "--out", card)
    assert done.returncode == 0, done.stderr
    assert "| `first` | 0.3 | " in (card / "README.md").read_text()
    assert "a mix of 0.3 first (" in next(root.glob("04_report/*/report.html")).read_text()

    done = tld("encode", *words(root, "phase=first", "encode.latent_clip=8"))
    assert done.returncode == 0, done.stderr
    changed = states(root, "encode.latent_clip=8")
    assert changed["encode first"] == "fresh"
    assert changed["train few"] == "stale"
    refused = tld("train", *words(root, "encode.latent_clip=8"))
    assert refused.returncode == 2
    assert "cannot train: the output of encode few for these settings is stale" in refused.stderr
