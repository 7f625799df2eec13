"""`tld import-checkpoint` and `tld export-checkpoint`: conversion from and to the checkpoints of
apapiu/transformer_latent_diffusion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from data_catalog.storage.files import replacing
from flows.cli.out_path import file_problems, folder_problems
from flows.cli.problems import refuse
from flows.terminal.console import console
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from tld_model.config import DenoiserConfig
    from tld_model.original_layouts import Layout

_LAYOUTS = (
    "Layout of the original code's weights: main, or legacy (older weights, with 4 heads in "
    "cross-attention and norms after the residual sum)."
)
_Layout = Annotated[
    Literal["main", "legacy"] | None,
    Parameter(
        help=f"{_LAYOUTS} [default: detected, by trying both on nearly clean latents, which a "
        "trained model reproduces]"
    ),
]
_LatentDivisor = Annotated[
    float,
    Parameter(
        help="What raw latents were divided by in its training: scaling_factor of its config."
    ),
]


def import_checkpoint(
    file: Annotated[
        Path,
        Parameter(
            help="A .pth file of apapiu/transformer_latent_diffusion. No code in it is executed."
        ),
    ],
    *,
    out: Annotated[Path, Parameter(help="Folder to write denoiser.safetensors into.")],
    layout: _Layout = None,
    latent_divisor: _LatentDivisor = 8.0,
    vae: Annotated[
        str | None,
        Parameter(help="VAE that it was trained with. It is recorded; sampling refuses any other."),
    ] = None,
    clip: Annotated[
        str | None,
        Parameter(
            help="CLIP that it was trained with. It is recorded; sampling refuses any other."
        ),
    ] = None,
) -> None:
    """Convert an apapiu/transformer_latent_diffusion checkpoint to tld's format.

    The sizes are read from the weights. Sample with the result:
    tld sample original-100m "a prompt" --model DIR --guidance 6

    The published models belong to the VAE madebyollin/sdxl-vae-fp16-fix and to CLIP
    openai/clip-vit-large-patch14, which are the defaults of encode.vae and encode.clip.
    """
    from data_catalog.model_files import MODEL_FILE

    encoders = {kind: name for kind, name in (("vae", vae), ("clip", clip)) if name is not None}
    _check_import(out / MODEL_FILE, latent_divisor, encoders)
    _import(file, out / MODEL_FILE, layout, latent_divisor, encoders)


def _import(
    file: Path,
    path: Path,
    layout: Layout | None,
    latent_divisor: float,
    encoders: dict[str, str],
) -> None:
    from tld_model.checkpoint import save_denoiser
    from tld_model.encoders.names import encoder_identity
    from tld_model.original_checkpoint import import_published

    published = import_published(file, layout)
    encoders |= {f"{kind}_identity": encoder_identity(name) for kind, name in encoders.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        save_denoiser(
            unfinished,
            published.weights,
            published.config,
            encoders,
            latent_scaling=1 / latent_divisor,
        )
    recorded = ", ".join(encoders[kind] for kind in ("vae", "clip") if kind in encoders)
    console.print(
        f"layout     {published.layout}: {published.reason}\n"
        f"model      {_sizes(published.config)}\n"
        f"latents    raw latents / {latent_divisor:g}, recorded\n"
        f"encoders   {recorded or 'not recorded'}\n"
        f"written    {path}",
    )


def export_checkpoint(
    checkpoint: Annotated[
        Path, Parameter(help="A denoiser.safetensors file of tld, or the folder that contains one.")
    ],
    *,
    layout: Annotated[Literal["main", "legacy"], Parameter(help=_LAYOUTS)],
    out: Annotated[Path, Parameter(help="The .pth file to write.")],
) -> None:
    """Convert a model of tld to a checkpoint that the Denoiser of
    apapiu/transformer_latent_diffusion loads.

    Models with the default architecture use layout main. Parts that the layout lacks (QK-norm,
    token-level text, …) are refused by name.

    Example: tld export-checkpoint data/03_model/0123456789ab --layout main --out model.pth
    """
    from data_catalog.model_files import model_file

    problems = file_problems(out) or (
        [f"--out: {out} exists; remove it or choose another file"] if out.exists() else []
    )
    if problems:
        raise UserError("\n".join(problems))

    from tld_model.checkpoint import load_denoiser, read_latent_scaling
    from tld_model.original_checkpoint import export_published

    path = model_file(checkpoint)
    denoiser = load_denoiser(path, "cpu")
    with replacing(out) as unfinished:
        export_published(unfinished, denoiser.state_dict(), denoiser.config, layout)
    scaling = read_latent_scaling(path)
    divisor = f"{1 / scaling:g}" if scaling else "1 / vae.config.scaling_factor"
    console.print(
        f"model      {_sizes(denoiser.config)}\n"
        f"latents    call its generate() with scale_factor={divisor}\n"
        f"written    {out}, layout {layout}",
    )


def _check_import(path: Path, latent_divisor: float, encoders: dict[str, str]) -> None:
    """Raise Problems with all that would make an import fail."""
    from tld_model.encoders.config_files import encoder_problem

    problems = [
        f"--{kind}: {problem}"
        for kind, name in encoders.items()
        if (problem := encoder_problem(name))
    ]
    if out_problems := folder_problems(path.parent, with_parents=True):
        problems += out_problems
    elif path.exists():
        problems.append(f"--out: {path} exists; remove it or choose another folder")
    if not 1e-6 <= latent_divisor <= 1e6:
        problems.append(f"--latent-divisor: must be from 1e-06 to 1e+06, got {latent_divisor:g}")
    refuse(problems, "cannot import")


def _sizes(config: DenoiserConfig) -> str:
    return (
        f"{config.layers} layers of width {config.width}, latents [{config.latent_channels}, "
        f"{config.latent_size}, {config.latent_size}] in patches of {config.patch_size}, text "
        f"{config.text_dim}"
    )
