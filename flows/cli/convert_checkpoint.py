"""`tld import-checkpoint` and `tld export-checkpoint`: models of the published project become ours,
and go back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from data_catalog.storage.files import replacing
from flows.cli.out_path import file_problems, folder_problems
from flows.terminal.console import console
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from tld_model.config import DenoiserConfig

_LAYOUTS = (
    "Generation of the original code: 'main', or 'legacy' (its old weights: 4 heads in "
    "cross-attention, "
    "norms after the residual sum)."
)


def import_checkpoint(
    file: Annotated[
        Path,
        Parameter(help="A .pth file of apapiu/transformer_latent_diffusion. Nothing in it is run."),
    ],
    *,
    out: Annotated[Path, Parameter(help="Folder in which denoiser.safetensors is to be written.")],
    layout: Annotated[
        Literal["main", "legacy"] | None,
        Parameter(
            help=f"{_LAYOUTS} Without it both are tried on nearly clean latents, which a trained model repeats."
        ),
    ] = None,
    latent_divisor: Annotated[
        float,
        Parameter(
            help="What raw latents were divided by in its training: scaling_factor of its config."
        ),
    ] = 8.0,
    vae: Annotated[
        str | None,
        Parameter(
            help="Autoencoder it was trained with, to be recorded: sampling refuses any other."
        ),
    ] = None,
    clip: Annotated[
        str | None, Parameter(help="CLIP it was trained with, to be recorded: as --vae.")
    ] = None,
) -> None:
    """Turn a checkpoint of the published project into ours.

    The sizes are read from the weights. Draw with it:
    tld sample conf/tld-100m.yaml "a prompt" --model DIR --guidance 6

    The published models belong to the VAE madebyollin/sdxl-vae-fp16-fix and to CLIP
    openai/clip-vit-large-patch14, which are the defaults of encode.vae and encode.clip.
    """
    from data_catalog.model_files import MODEL_FILE

    path = out / MODEL_FILE
    encoders = {kind: name for kind, name in (("vae", vae), ("clip", clip)) if name is not None}
    _check_import(path, latent_divisor, encoders)

    from tld_model.checkpoint import save_denoiser
    from tld_model.encoders.names import encoder_identity
    from tld_model.original_checkpoint import import_published

    published = import_published(file, layout)
    encoders |= {f"{kind}_identity": encoder_identity(name) for kind, name in encoders.items()}
    out.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        save_denoiser(
            unfinished,
            published.weights,
            published.config,
            encoders,
            latent_scaling=1 / latent_divisor,
        )
    console.print(
        f"layout     {published.layout}: {published.reason}\n"
        f"model      {_sizes(published.config)}\n"
        f"latents    raw latents / {latent_divisor:g}, recorded\n"
        "encoders   "
        f"{', '.join(encoders[kind] for kind in ('vae', 'clip') if kind in encoders) or 'not recorded'}\n"
        f"written    {path}",
    )


def export_checkpoint(
    checkpoint: Annotated[
        Path, Parameter(help="A denoiser.safetensors of ours, or the folder that holds one.")
    ],
    *,
    layout: Annotated[Literal["main", "legacy"], Parameter(help=_LAYOUTS)],
    out: Annotated[Path, Parameter(help="The .pth file to write.")],
) -> None:
    """Turn a model of ours into a checkpoint of the published project, which its Denoiser loads.

    Models trained with the default architecture are of layout main. What the layout does not know
    (QK-norm, token-level text, …) is refused by name.
    """
    from data_catalog.model_files import model_file

    problems = file_problems(out) or (
        [f"--out: {out} exists; remove it or choose another"] if out.exists() else []
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
        f"latents    give generate() there scale_factor={divisor}\n"
        f"written    {out}, layout {layout}",
    )


def _check_import(path: Path, latent_divisor: float, encoders: dict[str, str]) -> None:
    """Raise UserError, all problems at once, where an import cannot work."""
    from tld_model.encoders.config_files import encoder_problem

    problems = [
        f"--{kind}: {problem}"
        for kind, name in encoders.items()
        if (problem := encoder_problem(name))
    ]
    if place := folder_problems(path.parent, with_parents=True):
        problems += place
    elif path.exists():
        problems.append(f"--out: {path} exists; remove it or choose another folder")
    if not 1e-6 <= latent_divisor <= 1e6:
        problems.append(f"--latent-divisor: must be from 1e-06 to 1e+06, got {latent_divisor:g}")
    if problems:
        raise UserError(
            "this import cannot work:\n" + "\n".join(f"  {problem}" for problem in problems)
        )


def _sizes(config: DenoiserConfig) -> str:
    return (
        f"{config.layers} layers of width {config.width}, latents [{config.latent_channels}, "
        f"{config.latent_size}, "
        f"{config.latent_size}] in patches of {config.patch_size}, text {config.text_dim}"
    )
