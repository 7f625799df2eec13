"""Training settings: optimization, noise levels, loss, checkpoints and scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from data_catalog.model_files import BEST, Average
from pipeline.config.launch import LaunchConfig
from pipeline.config.paths import FilePath
from pipeline.config.score import ScoreConfig
from pipeline.config.section import (
    NotInFingerprint,
    Section,
    SpeedOnly,
    SpeedOnlyUpToRounding,
)
from tld_model.config import LARGEST_SEED, Precision

_Decays = Annotated[
    tuple[Annotated[float, Field(ge=0, lt=1)], ...],
    BeforeValidator(lambda value: value if isinstance(value, list | tuple) else (value,)),
]


class TrainConfig(Section):
    """encodings -> model"""

    steps: int = Field(50_000, ge=1, le=10**9)
    """Number of optimizer steps."""
    batch_size: int = Field(256, ge=1, le=1_048_576)
    """Image-caption pairs per optimizer step, over all processes."""
    accumulate: SpeedOnlyUpToRounding[int] = Field(1, ge=1)
    """Gradient accumulation: process each batch in this many parts, one after the other. The
    gradient is the same and needs less memory."""
    checkpoint_blocks: SpeedOnlyUpToRounding[bool] = False
    """Activation checkpointing (Chen et al., 2016): keep only the input of each transformer block
    for the backward pass, which computes the block again. Much less memory for about a third more
    computation. On a CPU the weights are the same to the bit."""
    init_from: FilePath | None = None
    """Start from the weights of this denoiser.safetensors, or of the one in this folder. Learned
    positions are interpolated if model.latent_size differs; the weights that model.inpainting adds
    start at zero."""
    continue_from: FilePath | None = None
    """Continue the training of this model folder, or of this checkpoint file (step-*.pt), with
    other data, learning rate or batch size: weights, averages, optimizer state and step. Of a
    folder it takes the newest checkpoint before the decay, else the newest. steps counts the steps
    before it too."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """'adamw' updates all weights; with 'muon', Muon (Jordan et al., 2024) updates the weight
    matrices of the blocks, and AdamW the rest. Muon's updates are scaled so that both share lr and
    weight_decay (Liu et al., 2025)."""
    lr: float = Field(3e-4, gt=0)
    """Peak learning rate."""
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: a cosine decay to zero, or constant. A training with a
    constant one can be made longer later, and decay_steps lets it fall at the end."""
    decay_steps: int = Field(0, ge=0, le=10**9)
    """Steps at the end, with lr_schedule=constant, over which the learning rate falls to zero by
    1 - sqrt(progress) (Hägele et al., 2024): warm-up, constant, decay (Hu et al., 2024)."""
    warmup_steps: int = Field(500, ge=0, le=10**9)
    """Steps over which the learning rate rises linearly to lr."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay (Loshchilov and Hutter, 2019); with 0, AdamW is Adam."""
    beta2: float = Field(0.99, gt=0, lt=1)
    """Decay rate of AdamW's average of squared gradients."""
    clip_norm: float = Field(1.0, gt=0)
    """Gradients with a larger norm are clipped to it."""
    ema_decay: _Decays = (0.999,)
    """Decay of the exponential moving average of the weights, which becomes the model. Several, for
    example [0.999, 0.9999], each maintain an average, from which evaluate.ema chooses: the best
    length is known only after training (Karras et al., 2024)."""
    ema_warmup: bool = True
    """Raise the decay slowly: min(ema_decay, (1 + step) / (10 + step)). Without this warm-up the
    average retains the initial weights for a long time, as in the original recipe."""
    condition_dropout: float = Field(0.15, ge=0, lt=1)
    """Share of captions that are replaced by 'no condition'; classifier-free guidance needs
    this."""
    caption_weights: dict[str, Annotated[float, Field(ge=0)]] = Field({})
    """Relative frequency of each caption column for images with several captions, for example
    {alt: 1, recaptioned: 3}; the default is 1. A new caption is chosen in every epoch."""
    mix: dict[str, Annotated[float, Field(gt=0)]] = Field({})
    """Phases of whose encodings the pairs of this phase come, with weights, for example
    {first: 0.3, fine: 0.7}: this phase or earlier ones. Within each every pair comes equally often.
    Later phases do not take this over. With {} all pairs come from this phase."""
    noise_levels: Literal["beta", "logit_normal"] = "beta"
    """Distribution of training noise levels: 'beta' is Beta(noise_alpha, noise_beta);
    'logit_normal' is the logistic function of Normal(noise_location, noise_scale) (Esser et al.,
    2024)."""
    noise_alpha: float = Field(1.0, gt=0)
    """First parameter (alpha) of the beta distribution of noise_levels."""
    noise_beta: float = Field(2.5, gt=0)
    """Second parameter (beta) of the beta distribution of noise_levels."""
    noise_location: float = Field(0.0)
    """Mean of the normal distribution behind noise_levels=logit_normal; above 0 means more
    noise."""
    noise_scale: float = Field(1.0, gt=0)
    """Standard deviation of the normal distribution behind noise_levels=logit_normal."""
    noise_shift: float = Field(1.0, gt=0)
    """Map noise levels s of either distribution to shift s / (1 + (shift - 1) s). Above 1 means
    more noise, which larger latents need (Esser et al., 2024, eq. 23): 2 for four times the
    pixels."""
    loss_weight: Literal["velocity", "snr"] = "velocity"
    """Weight of the squared error of x0 at noise level s, capped at max_loss_weight. 'velocity' is
    1/s^2; 'snr' is ((1 - s)/s)^2, which is min-SNR-gamma with gamma = max_loss_weight (Hang et al.,
    2023)."""
    max_loss_weight: float | None = Field(None, ge=1)
    """Upper limit of loss_weight. With 'velocity', a limit of 1 gives the plain squared error of
    x0, and no limit that of the velocity. null gives the plain squared error of what the model
    predicts (model.predicts)."""
    contrastive: float = Field(0.0, ge=0, lt=1)
    """Contrastive flow matching (Stoica et al., 2025, use 0.05): subtract this share of the squared
    distance to the velocity of a pair with another caption from the loss. 0 switches it off."""
    precision: Precision = "auto"
    compile: SpeedOnlyUpToRounding[Literal["auto"] | bool] = "auto"
    """Compile the transformer blocks with torch.compile, which takes a minute or two at the start.
    'auto' does so on a GPU if there is a C compiler (gcc or clang), unless deterministic is set. On
    a CPU it gains nothing. Where the blocks are compiled on a GPU, training also measures at its
    start whether a fused kernel computes the depthwise convolutions faster, unless deterministic is
    set."""
    held_out_fraction: float = Field(0.02, ge=0, le=0.5)
    """Share of pairs held out of training, chosen by a hash of the key. A split column in the table
    takes precedence (download.split_column)."""
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """Seed of the initial weights, the order of pairs, noise and condition dropout."""
    checkpoint_every: SpeedOnly[int] = Field(1000, ge=1)
    """Steps between checkpoints. A crash loses at most these, and those of the seconds in which a
    checkpoint is written."""
    validate_every: SpeedOnly[int] = Field(1000, ge=1)
    """Steps between evaluations of the held-out loss."""
    sample_every: SpeedOnly[int] = Field(5000, ge=1)
    """Steps between grids of samples."""
    log_every: SpeedOnly[int] = Field(20, ge=1)
    """Steps between log entries of loss and speed."""
    score: NotInFingerprint[ScoreConfig] = ScoreConfig()  # its best_by counts, with what it needs
    device: SpeedOnly[str] = "auto"
    """Device for training: 'auto', 'cpu', 'cuda' or 'cuda:1'."""
    deterministic: NotInFingerprint[bool] = False  # the same model up to rounding
    """Use only algorithms that give the same bits every time. A resumed run then ends with the same
    weights on a GPU too; on a CPU it always does. Slower."""
    launch: SpeedOnlyUpToRounding[LaunchConfig] = LaunchConfig()
    """Number of machines and of processes per machine."""
    sharding: SpeedOnlyUpToRounding[Literal["none", "fsdp"]] = "none"
    """How several processes hold the model: 'none' gives each the whole model; 'fsdp' gives each a
    shard of it, for models that do not fit on one GPU."""

    @property
    def averages(self) -> tuple[Average, ...]:
        """The averages that the training makes, as evaluate.ema names them."""
        numbers = range(len(self.ema_decay))
        return (*numbers, BEST) if self.score.best_by else (*numbers,)

    def average_problem(self, average: Average) -> str:
        """Why the training makes no such average, or ""."""
        if average == BEST:
            return "" if self.score.best_by else "without train.score.best_by there is no best one"
        decays = len(self.ema_decay)
        if 0 <= average < decays:
            return ""
        return f"there is no average {average}; train.ema_decay has {decays}, numbered from 0"

    @property
    def trunk_steps(self) -> int:
        """Number of steps before the decay."""
        return self.steps - self.decay_steps

    @field_validator("ema_decay")
    @classmethod
    def _decays_differ(cls, decays: tuple[float, ...]) -> tuple[float, ...]:
        if not decays or len(set(decays)) < len(decays):
            raise ValueError("give one decay, or several different ones")
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
            f"{launch.nodes} (nodes) × {launch.processes} (processes) equal parts{of_pairs}",
        )
        yield (
            bool(self.continue_from and self.init_from),
            "continue_from and init_from both give the first weights; remove one of them",
        )
        yield (
            self.decay_steps > 0 and self.lr_schedule != "constant",
            f"decay_steps is {self.decay_steps}, but lr_schedule={self.lr_schedule} falls to zero "
            "by itself; set lr_schedule=constant or decay_steps=0",
        )
        warmup, decay = self.warmup_steps, self.decay_steps
        yield (
            0 < decay > self.steps - warmup,
            f"warmup_steps {warmup} and decay_steps {decay} are more than steps {self.steps}",
        )
        yield (
            launch.processes > 1 and ":" in self.device,
            f"device {self.device!r} is one device, but launch.processes is {launch.processes}; "
            "use 'cuda'",
        )
        yield (
            launch.ranks == 1 and self.sharding != "none",
            f"sharding {self.sharding!r} needs launch.processes or launch.nodes of 2 or more",
        )
        yield (
            self.sharding == "fsdp" and self.optimizer == "muon",
            "optimizer 'muon' needs whole matrices, which sharding 'fsdp' splits; use 'adamw' "
            "or sharding 'none'",
        )
        yield (
            of_normal and self.noise_levels == "beta",
            "noise_location and noise_scale apply only to noise_levels=logit_normal",
        )
        yield (
            self.loss_weight == "snr" and self.max_loss_weight is None,
            "loss_weight=snr needs max_loss_weight, the gamma of min-SNR; its paper uses 5",
        )
