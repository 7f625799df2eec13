"""Settings of the denoiser's architecture and of its sampling, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

# A caption as one vector (its pooled embedding), or as one vector per token.
TextForm = Literal["pooled", "tokens"]
# The number format of stored latents and token states.
StoredDtype = Literal["uint8", "float16"]


@dataclass(frozen=True, slots=True)
class TextSettings:
    """What a user chooses of a text encoder's embeddings, beside the model."""

    layer: int | None = None  # from 1, or from -1 for the last backwards; None is the output
    tokens: int | None = None  # of the longest caption; None is what the model takes
    template: str = "{}"  # the caption takes the place of {}


class DenoiserConfig(BaseModel):
    """Architecture of the latent diffusion transformer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    latent_size: int = Field(32, ge=1)
    """Height and width of a latent: image size / 8 for most autoencoders, / 16 for FLUX.2's, / 32
    for a DC-AE of 32."""
    latent_channels: int = Field(4, ge=1)
    """Channels of a latent."""
    text: TextForm = "pooled"
    """Condition on the caption's pooled embedding, or on the states of its tokens
    (encode.text=tokens), to which the latent's tokens attend, as in Latent Diffusion (Rombach et
    al., 2022)."""
    text_dim: int = Field(768, ge=1)
    """Width of the pooled text embedding, or of the token states: both are 768 for CLIP
    ViT-L/14."""
    patch_size: int = Field(2, ge=1)
    """Edge of the square of latent pixels that becomes one token. It must divide latent_size."""
    width: int = Field(768, ge=64, multiple_of=64)
    """Width of a token. Attention heads are 64 wide."""
    layers: int = Field(12, ge=1)
    """Number of transformer blocks."""
    mlp_multiplier: int = Field(4, ge=1)
    """Hidden width of the feed-forward network as a multiple of width."""
    blocks: Literal["original", "joint"] = "original"
    """'original' blocks have self-attention, cross-attention to the condition (noise level and
    text), and a feed-forward. In 'joint' blocks one attention, with an output projection, sees both
    the latent's tokens and the condition, as in GLIDE (Nichol et al., 2022, section 4.1) and Imagen
    (Saharia et al., 2022). They do not go with cross_attention_heads or norm=post."""
    noise_embed_dim: int = Field(256, ge=2, multiple_of=2)
    """Number of Fourier features of the noise level."""
    predicts: Literal["x0", "v"] = "x0"
    """Output of the network's last layer: the clean latent x0, or the velocity v = noise - x0 of
    the path between noise and x0 (Liu et al., 2023). The denoiser converts either to the clean
    latent, so samplers see no difference. Training minimises the squared error of the same
    quantity, unless train.max_loss_weight says otherwise."""
    qk_norm: bool = False
    """Layer norm of each head's queries and keys before attention (Henry et al., 2020; Dehghani et
    al., 2023), which keeps attention logits from growing at high learning rates."""
    positions: Literal["learned", "none"] = "learned"
    """Position embeddings of tokens. With 'none', only the depthwise convolutions encode where a
    token is (Islam et al., 2020)."""
    inpainting: bool = False
    """Take the known part of an image as additional input: next to the c noisy channels, c channels
    of the latent with its unknown part blanked, and 1 that marks the known part (as in Stable
    Diffusion's inpainting model; Rombach et al., 2022). Without an image it is an ordinary
    text-to-image model. Initialize it from such a model with train.init_from."""
    cross_attention_heads: int | None = Field(None, ge=1)
    """Number of cross-attention heads, which share the width. By default heads are 64 wide, as in
    self-attention."""
    norm: Literal["pre", "post"] = "pre"
    """Place of a block's layer norms: before each branch, or after its sum with the residual
    (Xiong et al., 2020)."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: object, field: ValidationInfo) -> object:
        """Reject true and false for numbers; Python would accept them as 1 and 0."""
        kind = cls.model_fields[str(field.field_name)].annotation
        if isinstance(value, bool) and kind in (int, int | None):
            raise ValueError("takes a number, not true or false")
        return value

    @model_validator(mode="after")
    def _patches_tile_the_latent(self) -> DenoiserConfig:
        if self.latent_size % self.patch_size:
            raise ValueError(
                f"patch_size {self.patch_size} does not divide latent_size {self.latent_size}"
            )
        return self

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> DenoiserConfig:
        if self.cross_attention_heads and self.width % self.cross_attention_heads:
            raise ValueError(
                f"cross_attention_heads {self.cross_attention_heads} does not divide width "
                f"{self.width}"
            )
        return self

    @model_validator(mode="after")
    def _settings_of_original_blocks(self) -> DenoiserConfig:
        if self.blocks == "original":
            return self
        problems = [f"norm={self.norm}"] if self.norm != "pre" else []
        if self.cross_attention_heads:
            problems.append(f"cross_attention_heads={self.cross_attention_heads}")
        if problems:
            raise ValueError(
                f"blocks={self.blocks} does not go with {' and '.join(problems)}; leave that out, "
                "or set blocks=original"
            )
        return self

    @property
    def tokens(self) -> int:
        """Length of the token sequence."""
        return (self.latent_size // self.patch_size) ** 2

    @property
    def patch_dim(self) -> int:
        """Number of values in one patch."""
        return self.latent_channels * self.patch_size**2


SolverName = Literal["dpmpp_2m", "unipc", "heun", "euler", "ddim"]
MOST_STEPS = 10_000
MOST_GUIDANCE = 1000
LARGEST_SEED = 2**63 - 1  # the largest signed 64-bit integer


def _has_a_length(interval: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= interval[0] < interval[1] <= 1:
        raise ValueError("give two noise levels between 0 and 1, the lower first, as [0.2, 0.8]")
    return interval


Precision = Annotated[
    Literal["auto", "bf16", "fp32"],
    Field(
        description="Arithmetic of the denoiser. 'auto' uses bf16 if the hardware supports it. On "
        "a GPU, fp32 multiplies matrices in TF32."
    ),
]

# The settings of sampling with their bounds and their help. Models of pydantic check the bounds.
StepCount = Annotated[int, Field(ge=1, le=MOST_STEPS, description="Number of sampling steps.")]
GuidanceScale = Annotated[
    float,
    Field(
        ge=1,
        le=MOST_GUIDANCE,
        allow_inf_nan=False,
        description="Guidance scale: how strongly the image follows the prompt. 1 switches "
        "guidance off and halves the cost.",
    ),
]
SolverChoice = Annotated[
    SolverName,
    Field(
        description="ODE solver. 'unipc' (Zhao et al., 2023) is of third order; 'dpmpp_2m' (Lu et "
        "al., 2022) and 'heun' (Karras et al., 2022) are of second order, and 'heun' evaluates the "
        "model twice per step. 'euler' and 'ddim' are of first order and, on this path, identical."
    ),
]
GuidanceInterval = Annotated[
    tuple[float, float],
    AfterValidator(_has_a_length),
    Field(
        description="Lowest and highest noise level, in [0, 1], at which guidance applies. "
        "Kynkäänniemi et al. (2024) find that guidance harms at high noise levels. A step outside "
        "costs half."
    ),
]


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """The settings of sampling. Images with equal settings can share a batch."""

    steps: StepCount = 20
    guidance: GuidanceScale = 4.5
    solver: SolverChoice = "dpmpp_2m"
    guidance_interval: GuidanceInterval = (0.0, 1.0)

    @property
    def model_calls(self) -> int:
        """The number of model calls per image."""
        return 2 * self.steps - 1 if self.solver == "heun" else self.steps


DEFAULT_SAMPLING = SamplingSettings()
