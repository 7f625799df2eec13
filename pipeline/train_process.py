"""Stage 3 as a process of its own: `train` starts it and follows it, `main` is it.

Around the loop of train.py it logs, saves, samples and stops. Knows nothing of MLflow: it tells events.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from data_catalog.manifest import Manifest, Shard, file_digest, file_records, read_manifest, write_atomically
from pipeline.batches import EncodedPairs, Split, open_pairs, split_pairs
from pipeline.checkpoints import checkpoints, resume, save_checkpoint
from pipeline.child import ChildFailed, Event, run_child
from pipeline.config import TrainConfig
from pipeline.devices import choose_device
from pipeline.pictures import picture_grid
from pipeline.pool import end_with_parent
from pipeline.stage import Output, StageFailed, Tracker
from pipeline.train import TrainState, TrainStep, held_out_loss, initial_state, train_steps
from pipeline.train_events import EVENTS_FILE, MODEL_FILE
from tld_model.checkpoint import save_denoiser
from tld_model.config import DenoiserConfig
from tld_model.encoders import ImageCodec, load_image_codec
from tld_model.sampler import guided, noise_levels, sample_dpmpp_2m

_EARLIER_EVENTS_FILE = "events.before.jsonl"
_SAMPLES = 16
_SAMPLE_STEPS = 20
_SAMPLE_GUIDANCE = 3.0


class ModelMismatch(ValueError):
    """Encodings whose shape does not fit the model."""


class TrainJob(BaseModel):
    """What the child is asked to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encodings: Path
    out: Path
    config: TrainConfig
    model: DenoiserConfig
    parent: int


def train(encodings: Manifest, config: TrainConfig, model: DenoiserConfig, out: Path, track: Tracker) -> Output:
    """Train a denoiser in a child process, or resume where one was stopped."""
    check_fit(encodings, model)
    job = TrainJob(encodings=encodings.folder, out=out, config=config, model=model, parent=os.getpid())
    write_atomically(out / "job.json", job.model_dump_json(indent=2))
    told: dict[str, Any] = {}
    events = out / EVENTS_FILE
    if events.exists() and events.stat().st_size:
        os.replace(events, out / _EARLIER_EVENTS_FILE)

    def on_event(event: Event) -> None:
        match event["kind"]:
            case "metrics":
                track.metrics(event["values"], event["step"])
            case "artifact":
                track.artifact(out / event["path"], event["folder"])
            case "progress":
                track.progress(event["done"], event["total"], event["note"])
            case "result":
                told.update(event["values"])

    try:
        run_child("pipeline.train_process", [str(out / "job.json")], events, out / "train.log", on_event)
    except ChildFailed as error:
        kept = checkpoints(out / "checkpoints")
        how = (
            f"The checkpoint {kept[-1].name} is kept: the same command goes on from it."
            if kept
            else ("No checkpoint was written yet: the same command starts again.")
        )
        raise StageFailed(f"train: the training process failed; {error}\n{how} Its log: {out / 'train.log'}") from error
    path = out / MODEL_FILE
    shard = Shard(name="denoiser", rows=told["train_pairs"], digest=file_digest(path), files=file_records([path]))
    return Output((shard,), told)


def check_fit(encodings: Manifest, model: DenoiserConfig) -> None:
    """Raise ModelMismatch where the encodings are not what the model takes."""
    channels, height, width = encodings.figures["latent_shape"]
    by_token = model.text == "tokens"
    if by_token and "token_dim" not in encodings.figures:
        raise ModelMismatch("model.text is tokens, and the encodings hold pooled text alone: set encode.text=tokens")
    wanted = {
        "latent_channels": (model.latent_channels, channels),
        "latent_size": (model.latent_size, height),
        "text_dim": (model.text_dim, encodings.figures["token_dim" if by_token else "text_dim"]),
    }
    problems = [
        f"  model.{name} is {have}, the encodings have {found}: set model.{name}={found}"
        for name, (have, found) in wanted.items()
        if have != found
    ]
    if height != width:
        problems.append(f"  latents are {height}x{width}; the model takes square ones")
    if problems:
        raise ModelMismatch("the model does not fit the encodings:\n" + "\n".join(problems))


@dataclass(slots=True)
class _Story:
    """The child's events, a line each, and the clock of its progress."""

    path: Path
    total: int
    started: float = field(default_factory=time.monotonic)
    first_step: int = 0

    def begin_at(self, step: int) -> None:
        """Tell again what an earlier process told of the steps that need not be done again."""
        self.first_step = step
        before = self.path.with_name(_EARLIER_EVENTS_FILE)
        lines = before.read_text().splitlines() if before.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("}")]
        for event in events:
            if event["kind"] in ("metrics", "artifact") and event["step"] <= step:
                self.tell(**event)

    def tell(self, **event: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(event) + "\n")

    def tell_step(self, step: TrainStep, batch_size: int) -> None:
        loss = step.loss.item()
        if not math.isfinite(loss):
            raise SystemExit(f"the loss is {loss} at step {step.step}: lower train.lr or train.clip_norm")
        elapsed = time.monotonic() - self.started
        speed = (step.step - self.first_step) * batch_size / elapsed
        eta = (self.total - step.step) * batch_size / speed
        values = {"loss": loss, "lr": step.lr, "gradient_norm": step.gradient_norm.item(), "images_per_s": speed}
        self.tell(kind="metrics", step=step.step, values=values)
        note = f"loss {loss:.4f}  {speed:.0f} images/s  ETA {int(eta // 60)}:{int(eta % 60):02d}"
        self.tell(kind="progress", done=step.step, total=self.total, note=note)


class _Stop:
    """Set when this process is asked to end."""

    def __init__(self, parent: int) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the parent, which decides
        end_with_parent(parent, grace_s=15, then=self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


def main(job_file: Path) -> None:
    """The child: train, and at set steps log, validate, sample and save."""
    job = TrainJob.model_validate_json(job_file.read_text())
    stop = _Stop(job.parent)
    encodings = read_manifest(job.encodings)
    assert encodings is not None, "the parent checked that the encodings are finished"
    device = choose_device(job.config.device)
    pairs = open_pairs(encodings, job.model.text)
    split = split_pairs(encodings, job.config.held_out_fraction)
    codec = load_image_codec(encodings.figures["encoders"]["vae"], device)
    state = initial_state(job.config, job.model, device)
    resume(state, job.out / "checkpoints", device)
    story = _Story(job.out / EVENTS_FILE, job.config.steps)
    story.begin_at(state.step)

    config = job.config
    for step in train_steps(state, pairs, split, config, device):
        last = step.step == config.steps
        if last or step.step % config.log_every == 0:
            story.tell_step(step, config.batch_size)
        if last or step.step % config.validate_every == 0:
            story.tell(kind="metrics", step=step.step, values=held_out_loss(state.ema, pairs, split, device))
        if last or step.step % config.sample_every == 0:
            path = _sample_grid(state, pairs, split, codec, job.out)
            story.tell(kind="artifact", step=step.step, path=str(path.relative_to(job.out)), folder="samples")
        if last or step.step % config.checkpoint_every == 0 or stop.asked:
            save_checkpoint(state, job.out / "checkpoints")
        if stop.asked and not last:
            raise SystemExit(128 + signal.SIGTERM)

    save_denoiser(job.out / MODEL_FILE, state.ema.state_dict(), job.model, encodings.figures["encoders"])
    result = {
        "train_pairs": len(split.train),
        "held_out_pairs": len(split.held_out),
        "steps": state.step,
        "parameters": sum(parameter.numel() for parameter in state.denoiser.parameters()),
        **held_out_loss(state.ema, pairs, split, device),
    }
    story.tell(kind="result", values=result)


def _sample_grid(state: TrainState, pairs: EncodedPairs, split: Split, codec: ImageCodec, out: Path) -> Path:
    """Samples of the same held-out captions from the same noise: comparable from step to step."""
    text = pairs.take(split.held_out[:_SAMPLES]).text
    shape = (len(text), *pairs.shards[0].latents.shape[1:])
    device = codec.vae.device
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    denoise = guided(state.ema, _SAMPLE_GUIDANCE)
    latents = sample_dpmpp_2m(denoise, noise, text.to(device), noise_levels(_SAMPLE_STEPS))
    pictures = codec.decode(latents).permute(0, 2, 3, 1).cpu().numpy()
    path = out / "samples" / f"step-{state.step:08d}.png"
    path.parent.mkdir(exist_ok=True)
    picture_grid(list(pictures), split.held_out_captions[:_SAMPLES]).save(path)
    return path


if __name__ == "__main__":
    main(Path(sys.argv[1]))
