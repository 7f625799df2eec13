"""Every knob of a run, on one page; and how a run is read from a file. The sentence under a field is its help."""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from data_catalog.deduplication import MOST_BITS
from data_catalog.redaction import holds_secret, redacted
from data_catalog.scores import SCORES
from data_catalog.sources import known_sources, source_at
from data_catalog.storage.object_store import is_url
from data_catalog.text_files import TextFileError, read_text
from data_catalog.url_table.table import RowRules, TableColumns
from pipeline.config.paths import FilePath, TextPath, escape
from pipeline.config.yaml_tree import YamlError, read_tree, read_value
from tld_model.config import DenoiserConfig, TextForm
from tld_model.sampling import LARGEST_SEED, MOST_GUIDANCE, MOST_STEPS, Sampling, SolverName

_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_SHOWN = 200  # characters of a value
_LARGEST_CONFIG = 1 << 20  # bytes
_UNSPEAKABLE = "unspeakable"  # type of a problem whose value no message repeats

_Decays = Annotated[
    tuple[Annotated[float, Field(ge=0, lt=1)], ...],
    BeforeValidator(lambda given: given if isinstance(given, list | tuple) else (given,)),
]


def _without_secret(url: str) -> str:
    if holds_secret(url):
        raise PydanticCustomError(
            _UNSPEAKABLE,
            "the URL holds a user, a password or a query, and this place is shown to others; put secrets where fsspec "
            "looks for them (environment variables like AWS_SECRET_ACCESS_KEY, or files in ~/.config/fsspec)",
        )
    return url


def _parts(value: object) -> Iterator[object]:
    """A value, or those that a list or a mapping holds."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from _parts(part)
    elif isinstance(value, dict):
        yield from (*value, *value.values())
    else:
        yield value


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: object, field: ValidationInfo) -> object:
        """Python takes true for 1; a setting does not."""
        annotation = cls.model_fields[str(field.field_name)].annotation
        kinds = set(get_args(annotation)) or {annotation}
        if isinstance(value, bool) and kinds & {int, float}:
            raise ValueError("takes a number, not true or false")
        return value

    @field_validator("*")
    @classmethod
    def _can_be_used(cls, value: object) -> object:
        """What no setting can mean, whichever it is."""
        for part in _parts(value):
            if isinstance(part, int) and not -(2**63) <= part < 2**63:
                raise ValueError("is beyond 64 bits")
            if isinstance(part, str) and "\0" in part:
                raise ValueError("holds a null character")
            if isinstance(part, str) and _SURROGATE.search(part):
                raise ValueError("is not valid Unicode text")
        return value


class EngineConfig(_Section):
    """Where downloads and encodings are worked on. Changes speed only."""

    kind: Literal["local", "ray"] = "local"
    """'local': processes of this machine. 'ray': actors of a Ray cluster, on whose nodes this project is installed and
    the workspace lies under the same path; needs `pip install '.[ray]'`."""
    workers: int | None = Field(None, ge=1, le=4096)
    """Workers of each stage that says no number of its own (download.workers, encode.workers)."""
    address: str | None = Field(None, pattern=r"^(auto|[^/\s]+:\d+)$")
    """Of the Ray cluster: host:port, or 'auto' on one of its nodes; null starts Ray on this machine for a stage's
    time."""
    gpus_per_worker: float = Field(0, ge=0)
    """GPUs of the Ray cluster that each encoding worker has for itself; 0.5 lets two share one."""


class CacheConfig(_Section):
    """Where root is in object storage: this machine's copies of what it uses. Changes speed only."""

    folder: FilePath = Path("~/.cache/tld")
    """For copies, and for what one machine alone knows: the record of runs, without MLFLOW_TRACKING_URI."""
    max_gb: float = Field(100, gt=0)
    """Copies go when they take more, those longest out of use first; but for those in use."""


class DownloadConfig(_Section):
    """urls -> images"""

    source: str | None = None
    """A data set of `tld catalog list`: sets urls, columns and min_success_rate where you set nothing else."""
    urls: TextPath
    """Table of URLs and captions: a file (csv, tsv, parquet, json lines, also packed), a folder of such files or an
    fsspec URL like s3://…; or 'shapes' for the built-in data set. Of a URL's user, password and query, records show
    '***'."""
    url_column: str = "url"
    """Column of the URLs."""
    caption_column: str = "caption"
    """Column of the captions."""
    more_caption_columns: tuple[str, ...] = Field((), max_length=255)
    """Columns with further captions of the same picture, which training draws from (train.caption_weights). An empty
    one, or one of a length that is not wanted, is absent; its row is kept. Of a column of lists, `caption[1]` is the
    second element."""
    split_column: str | None = None
    """Column that says 'train' or 'held_out'; without it a hash of the key decides (train.held_out_fraction)."""
    limit: int | None = Field(None, ge=1)
    """Use only the first rows of the table."""
    min_caption_chars: int = Field(1, ge=1)
    """Rows with a shorter caption are left out."""
    max_caption_chars: int = Field(1000, ge=1, le=16_384)
    """Rows with a longer caption are left out; one of more than 16 KB always is."""
    image_size: int = Field(256, ge=16, le=2048)
    """Edge of the square pictures, pixels: the short side is resized to it, the center cropped."""
    image_format: Literal["jpg", "png", "webp"] = "jpg"
    """How pictures are stored in the shards."""
    jpeg_quality: int = Field(95, ge=1, le=100)
    """Of stored jpg pictures, and of webp."""
    min_image_size: int | None = Field(None, ge=1)
    """Pictures with a shorter side are dropped; without it image_size, so that nothing is enlarged."""
    max_aspect_ratio: float = Field(4.0, ge=1)
    """Pictures with a long side of more than this many short ones are dropped."""
    max_pixels_m: float = Field(64, gt=0, le=178)
    """Pictures of more megapixels are not decoded."""
    drop_duplicates: bool = True
    """Keep only the first of several URLs that brought the same file."""
    near_duplicate_bits: int | None = Field(3, ge=0, le=MOST_BITS)
    """Keep only the first of pictures that look the same: whose 64-bit perceptual hashes differ in at most so many
    bits; null keeps all."""
    shard_size: int = Field(1000, ge=2, le=100_000)
    """Rows of the table in one shard: the unit of work, retry and progress."""
    shard_deadline_s: float = Field(3600, gt=0)
    """A shard that takes longer is begun again by another process, at most twice. Changes speed only."""
    min_success_rate: float = Field(0.5, ge=0, le=1)
    """Fewer pictures than this share of the usable rows is an error."""
    timeout_s: float = Field(10, gt=0)
    """How long a server may stay silent, seconds."""
    url_deadline_s: float = Field(30, gt=0)
    """How long a URL may take in all: connections, redirects, body, second tries and the waits between them."""
    retries: int = Field(1, ge=0, le=10)
    """Second tries of a URL that failed for a cause that may pass: time-out, broken connection, HTTP 5xx or 429."""
    allowed_networks: tuple[str, ...] = ()
    """Networks in CIDR notation to fetch from although their addresses are not public, as ['10.20.0.0/16']."""
    max_body_mb: float = Field(32, gt=0, le=1024)
    """Larger files are not fetched."""
    respect_opt_out: bool = True
    """Drop files whose HTTP headers forbid training on them (X-Robots-Tag, TDM-Reservation)."""
    requests_per_host: int = Field(8, ge=1)
    """Connections to one host at a time, of all workers together. Changes speed only."""
    host_requests_per_s: float | None = Field(20, gt=0)
    """Requests a second to one host, of all workers together; null is no bound. Changes speed only."""
    workers: int = Field(2, ge=1, le=4096)
    """Processes. Changes speed only."""
    threads: int = Field(32, ge=1, le=4096)
    """Connections of each process. Changes speed only."""

    @field_serializer("urls", when_used="json")
    def _urls_as_recorded(self, urls: str) -> str:
        """What is recorded shows no secret; the run itself works with the whole URL."""
        return escape(redacted(urls))

    @field_validator("allowed_networks")
    @classmethod
    def _networks_exist(cls, allowed_networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in allowed_networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f"{error}; a network looks like 10.20.0.0/16 or fd12:3456::/32") from None
        return allowed_networks

    @model_validator(mode="after")
    def _caption_columns_differ(self) -> DownloadConfig:
        if twice := [name for name, count in Counter(self.caption_columns).items() if count > 1]:
            raise ValueError(f"caption_column and more_caption_columns name a column twice: {', '.join(twice)}")
        return self

    @property
    def known_source(self) -> str | None:
        """The data set of the catalog that this is, named or by where its table lies."""
        there = source_at(self.urls)
        return self.source or (there.name if there else None)

    @property
    def columns(self) -> TableColumns:
        return TableColumns(self.url_column, self.caption_column, self.split_column, self.more_caption_columns)

    @property
    def caption_columns(self) -> tuple[str, ...]:
        """All of them, the main one first."""
        return (self.caption_column, *self.more_caption_columns)

    @property
    def rules(self) -> RowRules:
        return RowRules(self.min_caption_chars, self.max_caption_chars)

    @model_validator(mode="before")
    @classmethod
    def _take_from_source(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(name := given.get("source"), str):
            return given
        known = known_sources().get(name)
        return (known.settings if known else {"urls": name}) | given  # an unknown one is the field's own problem

    @field_validator("source")
    @classmethod
    def _source_exists(cls, name: str | None) -> str | None:
        if name is not None and name not in known_sources():
            close = difflib.get_close_matches(name, known_sources(), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known_sources())}"
            raise ValueError(f"no such data set in the catalog; {hint}")
        return name

    @model_validator(mode="after")
    def _captions_have_a_length(self) -> DownloadConfig:
        if self.min_caption_chars > self.max_caption_chars:
            raise ValueError(
                f"min_caption_chars {self.min_caption_chars} is more than max_caption_chars {self.max_caption_chars}"
            )
        return self


class EncodeConfig(_Section):
    """images -> encodings"""

    vae: TextPath = "madebyollin/sdxl-vae-fp16-fix"
    """Autoencoder: a folder, a Hugging Face name, or 'shapes-vae', which ships with the project."""
    clip: TextPath = "openai/clip-vit-large-patch14"
    """CLIP model and tokenizer: a folder, a Hugging Face name, or 'shapes-clip', which ships with the project."""
    text: TextForm = "pooled"
    """'tokens' stores beside the pooled embedding of a caption the states of its tokens, for model.text=tokens: for
    CLIP ViT-L/14 1.5 kB a token."""
    posterior: Literal["mean", "sample"] = "mean"
    """Latents are the mean of the VAE's posterior, or a draw from it, seeded by the key."""
    latent_dtype: Literal["uint8", "float16"] = "uint8"
    """How latents are stored; float16 takes twice the space."""
    latent_clip: Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] = 5.0
    """Largest latent value that uint8 holds: one for all channels, or a list with one for each channel; the
    manifest's figures say how far each spreads. Scaled latents have a spread of about 1."""
    min_clip_score: float | None = Field(None, ge=-100, le=100)
    """Pairs whose picture and caption agree less (100 * cosine of CLIP) are left out, and listed with the reason."""
    keep_images: bool = True
    """'false' deletes an image shard once its encoded shard is finished. Does not change the encodings."""
    device: str = "auto"
    """'auto', 'cpu', 'cuda', 'cuda:1'. Changes speed only."""
    batch_size: int = Field(64, ge=1, le=65_536)
    """Pictures at once. Changes speed only, up to rounding: sums in another order may turn the last bit of a few
    stored numbers, which no manifest calls stale."""
    workers: int = Field(1, ge=1, le=4096)
    """Processes, each with models of its own. Changes speed only."""


class LaunchConfig(_Section):
    """On what a training runs. Changes speed only, up to rounding: gradients are added in another order."""

    nodes: int = Field(1, ge=1, le=4096)
    """Machines that train together. The same command is typed on each of them, or with engine.kind=ray on one; the
    workspace lies on a disk that all of them see under the same path."""
    processes: int = Field(1, ge=1, le=4096)
    """Processes of each machine, each on a GPU of its own; every batch is shared among those of all machines."""
    rendezvous: str | None = None
    """host:port at which several nodes meet: one of them, under the name or address by which the others reach it, and a
    free port there. That node leads: it alone writes and reports."""

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


class TrainConfig(_Section):
    """encodings -> model"""

    steps: int = Field(50_000, ge=1, le=10**9)
    """Optimizer steps."""
    batch_size: int = Field(256, ge=1, le=1_048_576)
    """Pairs a step."""
    accumulate: int = Field(1, ge=1)
    """Parts in which a step's batch is computed, one after the other: the same gradient up to rounding, in less memory.
    Changes speed only."""
    init_from: FilePath | None = None
    """Start from the weights of this denoiser.safetensors, or of the folder that holds one. Learned positions are
    interpolated where model.latent_size differs; the weights that model.inpainting adds start at zero."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """'muon' (Jordan et al., 2024) updates the blocks' weight matrices, AdamW the rest; updates are scaled so that both
    share lr and weight_decay (Liu et al., 2025)."""
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
    """Of the averaged weights; several, as [0.999, 0.9999], keep an average each, of which evaluate.ema chooses
    (the best length is known only after training: Karras et al., 2024)."""
    ema_warmup: bool = True
    """Reach ema_decay slowly: min(ema_decay, (1 + step) / (10 + step)). Without it the average remembers the initial
    weights, as the original recipe does."""
    condition_dropout: float = Field(0.15, ge=0, lt=1)
    """Share of captions replaced by 'no condition', which guidance needs."""
    caption_weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """How often each caption column is drawn where a picture has several captions, anew each epoch, as {alt: 1,
    recaptioned: 3}; 1 where nothing is said."""
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
    """Move noise levels s of either distribution to shift s / (1 + (shift - 1) s): above 1 is more noise, as larger
    latents need (Esser et al., 2024, eq. 23); 2 for four times the pixels."""
    loss_weight: Literal["velocity", "snr"] = "velocity"
    """Weight of the squared error of x0 at noise level s, up to max_loss_weight: 1/s^2, or ((1 - s)/s)^2, which is
    min-SNR-gamma with gamma = max_loss_weight (Hang et al., 2023)."""
    max_loss_weight: float | None = Field(None, ge=1)
    """Bound of loss_weight. With 'velocity', 1 is the plain squared error of x0, and no bound that of the velocity.
    Unset: the plain squared error of what the model predicts."""
    contrastive: float = Field(0.0, ge=0, lt=1)
    """Share of the squared distance to the velocity of a pair with another caption that is taken off the loss
    (contrastive flow matching; Stoica et al., 2025, use 0.05)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass; 'auto' is bf16 where the hardware has it."""
    compile: bool = False
    """Compile the transformer blocks with torch.compile, which needs a C++ compiler and takes a minute at the start;
    meant for GPUs: on a CPU it gained nothing. Changes speed only, up to rounding."""
    held_out_fraction: float = Field(0.02, ge=0, le=0.5)
    """Share of pairs kept out of training, by a hash of the key; a split column in the table goes first."""
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
    """Only algorithms that give the same bits every time, so that a run that was killed ends with the same weights on
    a GPU too, as on a CPU it does anyway. Slower."""
    launch: LaunchConfig = LaunchConfig()
    """Machines, and processes of each."""
    sharding: Literal["none", "fsdp"] = "none"
    """With several processes: each holds the whole model, or its share of it (FSDP), for models that outgrow one GPU.
    Changes speed only, up to rounding."""

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
        of_pairs = " of an even number of pairs, which contrastive needs" if self.contrastive else ""
        yield (
            self.batch_size % pieces != 0,
            f"batch_size {self.batch_size} does not divide into {self.accumulate} (accumulate) × {launch.nodes} "
            f"(nodes) × {launch.processes} (processes) equal parts{of_pairs}",
        )
        yield (
            launch.processes > 1 and ":" in self.device,
            f"device {self.device!r} is one device, for launch.processes {launch.processes}; say 'cuda'",
        )
        yield (
            launch.ranks == 1 and self.sharding != "none",
            f"sharding {self.sharding!r} needs launch.processes or launch.nodes of 2 or more",
        )
        yield (
            self.sharding == "fsdp" and self.optimizer == "muon",
            "optimizer 'muon' needs whole matrices, which sharding 'fsdp' takes apart; use 'adamw' or sharding 'none'",
        )
        yield (
            of_normal and self.noise_levels == "beta",
            "noise_location and noise_scale belong to noise_levels=logit_normal",
        )
        yield (
            self.loss_weight == "snr" and self.max_loss_weight is None,
            "loss_weight=snr needs max_loss_weight, which is min-SNR's gamma; 5 is that of its paper",
        )


class EvaluateConfig(_Section):
    """model -> report"""

    prompts: int = Field(256, ge=1, le=1_000_000)
    """How many held-out captions to sample, fewer where there are fewer."""
    steps: int = Field(20, ge=1, le=MOST_STEPS)
    """Sampling steps."""
    solver: SolverName = "dpmpp_2m"
    """'dpmpp_2m' (Lu et al., 2022) and 'heun' (Karras et al., 2022) are of second order, and 'heun' asks the model
    twice a step; 'euler' and 'ddim' are of first order, and on this path one and the same."""
    guidance: float = Field(4.5, ge=1, le=MOST_GUIDANCE)
    """Guidance scale; 1 is none, and costs half."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Noise levels, low and high of [0, 1], between which guidance applies (Kynkäänniemi et al., 2024, who find that it
    harms at high ones); a step outside costs half."""
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """Of the initial noise."""
    ema: int = Field(0, ge=0)
    """Which average of train.ema_decay to evaluate and sample from; 0 is the first."""
    grid: int = Field(36, ge=1, le=400)
    """Pictures in grid.png."""
    require: dict[str, float] = {}
    """Scores that the run must reach, as {prompt_accuracy: 0.8}; for losses, distances and latency_s (seconds of one
    picture), the most they may be."""
    price_per_hour: float | None = Field(None, ge=0)
    """What an hour of this machine costs you; the report then tells the price of the run. Changes nothing else."""
    device: str = "auto"
    """'auto', 'cpu', 'cuda', 'cuda:1'. Changes speed only."""
    batch_size: int = Field(64, ge=1, le=65_536)
    """Samples at once. Changes speed only."""

    @property
    def sampling(self) -> Sampling:
        """How this run draws, unless it is told otherwise."""
        return Sampling(self.steps, self.guidance, self.solver, self.guidance_interval)

    @field_validator("guidance_interval")
    @classmethod
    def _interval_has_a_length(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= interval[0] < interval[1] <= 1:
            raise ValueError("give two noise levels, the lower first, from 0 to 1, as [0.2, 0.8]")
        return interval

    @field_validator("require")
    @classmethod
    def _scores_exist(cls, require: dict[str, float]) -> dict[str, float]:
        if unknown := [name for name in require if name not in SCORES]:
            raise ValueError(f"no such score: {', '.join(unknown)}; known: {', '.join(SCORES)}")
        return require


class RunConfig(_Section):
    """A whole run: from URLs to a report."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Name of the run, and of its experiment in MLflow."""
    root: TextPath = "data"
    """Workspace: all that the run makes lies here. A folder, or a place in object storage as s3://bucket/laion. In
    this and every other path ~ and $NAME are expanded, and $$ is a dollar sign."""
    cache: CacheConfig = CacheConfig()
    engine: EngineConfig = EngineConfig()
    download: DownloadConfig
    encode: EncodeConfig = EncodeConfig()
    model: DenoiserConfig = DenoiserConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @property
    def folder(self) -> Path:
        """The workspace on this machine: root itself, or the folder of its copies."""
        if not is_url(self.root):
            return Path(self.root)
        name = re.sub(r"[^A-Za-z0-9]+", "-", self.root).strip("-")
        return self.cache.folder.expanduser() / f"{name}-{hashlib.sha256(self.root.encode()).hexdigest()[:8]}"

    @field_validator("root")
    @classmethod
    def _root_is_a_place(cls, root: str) -> str:
        if not root:
            raise ValueError("is empty; give a folder, or a place in object storage as s3://bucket/laion")
        return _without_secret(root).rstrip("/") if is_url(root) else root

    @model_validator(mode="after")
    def _workers_of_the_engine(self) -> RunConfig:
        for stage in ("download", "encode"):
            section = getattr(self, stage)
            if self.engine.workers and "workers" not in section.model_fields_set:
                # While it is made, a frozen model may still be changed.
                object.__setattr__(self, stage, section.model_copy(update={"workers": self.engine.workers}))
        return self

    @model_validator(mode="after")
    def _the_average_exists(self) -> RunConfig:
        kept = self.train.ema_decay
        if self.evaluate.ema >= len(kept):
            raise ValueError(f"evaluate.ema: there is no average {self.evaluate.ema}; train.ema_decay has {len(kept)}")
        return self


class ConfigError(ValueError):
    """A run that is not described validly; the message lists every problem."""

    exit_code = 2


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run from YAML and `section.key=value` overrides. Raises ConfigError, all problems at once."""
    if not path.exists() or path.is_dir():
        raise ConfigError(f"no config file at {path}; conf/tiny.yaml is a good one to copy")
    try:
        tree = read_tree(read_text(path, _LARGEST_CONFIG))
    except TextFileError as error:
        raise ConfigError(f"config file: {error}") from None
    except YamlError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold sections (name, root, download, …), not {type(tree).__name__}")

    problems = [problem for override in overrides if (problem := _apply_override(tree, override))]
    config: RunConfig | None = None
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        problems += [_describe(dict(problem)) for problem in error.errors()]
    if config is None or problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"{path} does not describe a valid run:\n{lines}")
    return config


def _apply_override(tree: dict[str, Any], override: str) -> str | None:
    """Set `section.key=value` in the tree; what is wrong with it, or None."""
    dotted, equals, raw = override.partition("=")
    if not equals or not dotted:
        return f"{override}: an override looks like section.key=value"
    *sections, key = dotted.split(".")
    node = tree
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            return f"{dotted}: {section!r} is a value, not a section"
    node[key] = read_value(raw)
    return None


def _describe(problem: dict[str, Any]) -> str:
    """One validation error as a user reads it: where, what, and the value."""
    location = problem["loc"]
    where = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = _settings_at(location[:-1])
        within = [f"{name}.{inner}" for name in known for inner in _settings_at((*location[:-1], name))]
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        close = close or difflib.get_close_matches(str(location[-1]), within, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{where}: no such setting; {hint}"
    if location == ("download", "urls") and problem["type"] == "missing":
        return f"{where}: is missing; give the path of a table, or set download.source to one of `tld catalog list`"
    if problem["type"] == "missing":
        return f"{where}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not location:
        return str(message)
    given = problem["input"]
    if problem["type"] == "string_type" and isinstance(given, bool | int | float):
        return f"{where}: is text; put it in quotes where it looks like a number or like true, got {given!r}"
    if isinstance(given, dict) or problem["type"] == _UNSPEAKABLE:
        return f"{where}: {message}"
    return f"{where}: {message}, got {_shortened(repr(given))}"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _settings_at(location: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []  # a value
        model = annotation
    return list(model.model_fields)
