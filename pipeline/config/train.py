"""Settings of the training: optimizer, schedule, noise levels, checkpoints, and the processes that
train."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from pipeline.config.paths import FilePath
from pipeline.config.section import Section
from tld_model.config import LARGEST_SEED

_Decays = Annotated[
    tuple[Annotated[float, Field(ge=0, lt=1)], ...],
    BeforeValidator(lambda given: given if isinstance(given, list | tuple) else (given,)),
]


class LaunchConfig(Section):
    """On what a training runs. Changes speed only, up to rounding: gradients are added in another
    order."""

    nodes: int = Field(1, ge=1, le=4096)
    """Machines that train together. The same command is typed on each of them, or with
    engine.kind=ray on one; the workspace lies on a disk that all of them see under the same
    path."""
    processes: int = Field(1, ge=1, le=4096)
    """Processes of each machine, each on a GPU of its own; every batch is shared among those of all
    machines."""
    rendezvous: str | None = None
    """host:port at which several nodes meet: one of them, under the name or address by which the
    others reach it, and a free port there. That node leads: it alone writes and reports."""

    @property
    def ranks(self) -> int:
        """Processes of all nodes."""
        return self.nodes * self.processes

    @property
    def meeting_place(self) -> tuple[str, int]:
        """Host and port of the rendezvous; any free port of this machine where nodes need none."""
        host, _, port = (self.rendezvous or "127.0.0.1:0").rpartition(":")
        return host, int(port)

    @field_validator("rendezvous")
    @classmethod
    def _is_host_and_port(cls, rendezvous: str | None) -> str | None:
        told = re.fullmatch(r"[^/\s:]+:(\d{1,5})", rendezvous) if rendezvous is not None else None
        if rendezvous is not None and not (told and 0 < int(told[1]) < 1 << 16):
            raise ValueError("give host:port, as host0:29400")
        return rendezvous

    @model_validator(mode="after")
    def _nodes_can_meet(self) -> LaunchConfig:
        if self.nodes > 1 and not self.rendezvous:
            raise ValueError(f"{self.nodes} nodes need a rendezvous, host:port of one of them")
        return self


class TrainConfig(Section):
    """encodings -> model"""

    steps: int = Field(50_000, ge=1, le=10**9)
    """Optimizer steps."""
    batch_size: int = Field(256, ge=1, le=1_048_576)
    """Pairs a step."""
    accumulate: int = Field(1, ge=1)
    """Parts in which a step's batch is computed, one after the other: the same gradient up to
    rounding, in less memory. Changes speed only."""
    init_from: FilePath | None = None
    """Start from the weights of this denoiser.safetensors, or of the folder that holds one. Learned
    positions are interpolated where model.latent_size differs; the weights that model.inpainting
    adds start at zero."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """'muon' (Jordan et al., 2024) updates the blocks' weight matrices, AdamW the rest; updates are
    scaled so that both share lr and weight_decay (Liu et al., 2025)."""
    lr: float = Field(3e-4, gt=0)
    """Highest learning rate."""
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    """What follows the warm-up: a cosine down to zero, or no change."""
    warmup_steps: int = Field(500, ge=0, le=10**9)
    """Steps of linear rise of the learning rate."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled (Loshchilov and Hutter, 2019); 0 makes AdamW Adam."""
    beta2: float = Field(0.99, gt=0, lt=1)
    """Of AdamW: memory of the squared gradient."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    ema_decay: _Decays = (0.999,)
    """Of the averaged weights; several, as [0.999, 0.9999], keep an average each, of which
    evaluate.ema chooses (the best length is known only after training: Karras et al., 2024)."""
    ema_warmup: bool = True
    """Reach ema_decay slowly: min(ema_decay, (1 + step) / (10 + step)). Without it the average
    remembers the initial weights, as the original recipe does."""
    condition_dropout: float = Field(0.15, ge=0, lt=1)
    """Share of captions replaced by 'no condition', which guidance needs."""
    caption_weights: dict[str, Annotated[float, Field(ge=0)]] = Field({})
    """How often each caption column is drawn where a picture has several captions, anew each epoch,
    as {alt: 1, recaptioned: 3}; 1 where nothing is said."""
    noise_levels: Literal["beta", "logit_normal"] = "beta"
    """Distribution of noise levels: Beta(noise_alpha, noise_beta), or the logistic function of
    Normal(noise_location, noise_scale) (Esser et al., 2024)."""
    noise_alpha: float = Field(1.0, gt=0)
    """See noise_levels."""
    noise_beta: float = Field(2.5, gt=0)
    """See noise_levels."""
    noise_location: float = Field(0.0)
    """See noise_levels; above 0 is more noise."""
    noise_scale: float = Field(1.0, gt=0)
    """See noise_levels."""
    noise_shift: float = Field(1.0, gt=0)
    """Move noise levels s of either distribution to shift s / (1 + (shift - 1) s): above 1 is more
    noise, as larger latents need (Esser et al., 2024, eq. 23); 2 for four times the pixels."""
    loss_weight: Literal["velocity", "snr"] = "velocity"
    """Weight of the squared error of x0 at noise level s, up to max_loss_weight: 1/s^2, or ((1 -
    s)/s)^2, which is min-SNR-gamma with gamma = max_loss_weight (Hang et al., 2023)."""
    max_loss_weight: float | None = Field(None, ge=1)
    """Bound of loss_weight. With 'velocity', 1 is the plain squared error of x0, and no bound that
    of the velocity. Unset: the plain squared error of what the model predicts."""
    contrastive: float = Field(0.0, ge=0, lt=1)
    """Share of the squared distance to the velocity of a pair with another caption that is taken
    off the loss (contrastive flow matching; Stoica et al., 2025, use 0.05)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass; 'auto' is bf16 where the hardware has it."""
    compile: bool = False
    """Compile the transformer blocks with torch.compile, which needs a C++ compiler and takes a
    minute at the start; meant for GPUs: on a CPU it gained nothing. Changes speed only, up to
    rounding."""
    held_out_fraction: float = Field(0.02, ge=0, le=0.5)
    """Share of pairs kept out of training, by a hash of the key; a split column in the table goes
    first."""
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """Of initial weights, order of pairs, noise and dropout."""
    checkpoint_every: int = Field(1000, ge=1)
    """Steps between checkpoints. A kill costs at most these. Changes speed only."""
    validate_every: int = Field(1000, ge=1)
    """Steps between held-out losses. Changes speed only."""
    sample_every: int = Field(5000, ge=1)
    """Steps between sample grids. Changes speed only."""
    log_every: int = Field(20, ge=1)
    """Steps between logged losses. Changes speed only."""
    device: str = "auto"
    """'auto', 'cpu', 'cuda', 'cuda:1'. Changes speed only."""
    deterministic: bool = False
    """Only algorithms that give the same bits every time, so that a run that was killed ends with
    the same weights on a GPU too, as on a CPU it does anyway. Slower."""
    launch: LaunchConfig = LaunchConfig()
    """Machines, and processes of each."""
    sharding: Literal["none", "fsdp"] = "none"
    """With several processes: each holds the whole model, or its share of it (FSDP), for models
    that outgrow one GPU. Changes speed only, up to rounding."""

    @field_validator("ema_decay")
    @classmethod
    def _decays_differ(cls, decays: tuple[float, ...]) -> tuple[float, ...]:
        if not decays or len(set(decays)) < len(decays):
            raise ValueError("give one decay, or several that differ")
        return decays

    @model_validator(mode="after")
    def _options_agree(self) -> TrainConfig:
        problems = [problem for wrong, problem in self._disagreements() if wrong]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _disagreements(self) -> Iterator[tuple[bool, str]]:
        of_normal = (self.noise_location, self.noise_scale) != (0, 1)
        launch = self.launch
        pieces = self.accumulate * launch.ranks * (2 if self.contrastive else 1)
        of_pairs = (
            " of an even number of pairs, which contrastive needs" if self.contrastive else ""
        )
        yield (
            self.batch_size % pieces != 0,
            f"batch_size {self.batch_size} does not divide into {self.accumulate} (accumulate) × "
            f"{launch.nodes} "
            f"(nodes) × {launch.processes} (processes) equal parts{of_pairs}",
        )
        yield (
            launch.processes > 1 and ":" in self.device,
            f"device {self.device!r} is one device, for launch.processes {launch.processes}; say "
            "'cuda'",
        )
        yield (
            launch.ranks == 1 and self.sharding != "none",
            f"sharding {self.sharding!r} needs launch.processes or launch.nodes of 2 or more",
        )
        yield (
            self.sharding == "fsdp" and self.optimizer == "muon",
            "optimizer 'muon' needs whole matrices, which sharding 'fsdp' takes apart; use 'adamw' "
            "or sharding 'none'",
        )
        yield (
            of_normal and self.noise_levels == "beta",
            "noise_location and noise_scale belong to noise_levels=logit_normal",
        )
        yield (
            self.loss_weight == "snr" and self.max_loss_weight is None,
            "loss_weight=snr needs max_loss_weight, which is min-SNR's gamma; 5 is that of its "
            "paper",
        )
