"""Text-to-image generation with a trained denoiser.

b batch   c latent channels   y, x latent height and width   t text width   l text tokens
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data_catalog.images import Images
from pipeline.compute.devices import use_device
from pipeline.compute.inference import Inference, inference_on
from pipeline.generate.image_size import Size, SizeError, size_problem
from tld_model.checkpoint import (
    CheckpointError,
    check_encoders,
    load_denoiser,
    read_latent_scaling,
    read_text_settings,
)
from tld_model.config import DEFAULT_SAMPLING, DenoiserConfig, Precision, SamplingSettings
from tld_model.denoiser import Denoiser
from tld_model.encoders.text_encoder import TextEncoder, load_text_encoder
from tld_model.encoders.vae import ImageCodec, load_image_codec
from tld_model.sampler import DenoiseFn, counted, guided, noise_levels

# On a CPU, an image of the large model takes as long alone as in a batch of eight. On a GPU, the
# padding of a batch costs almost nothing.
_BATCH_ON_CPU = 1
_TOGETHER_ON_GPU = 8


@dataclass(frozen=True, slots=True)
class ImageGenerator:
    """A denoiser with the encoders that it was trained with.

    Call it to generate images from captions. Its parts serve other ways of generating, such as
    inpainting.
    """

    denoiser: Denoiser
    text_encoder: TextEncoder
    codec: ImageCodec
    inference: Inference

    def __call__(
        self,
        captions: Sequence[str],
        seeds: Sequence[int] | None = None,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        negative: str = "",
        size: Size | None = None,
    ) -> Images:
        """Generate an image for each caption: uint8 [n, h, w, 3].

        Image i is determined, to the bit, by caption i, seed i (i if there are no seeds), the
        sampling settings, the negative caption, which guidance points away from, and the size,
        which defaults to that of the training. The other images of the call do not change it.
        Another kind of processor or number of threads may round differently.

        Raises SizeError if the model cannot generate this size.
        """
        return np.concatenate(list(self.draw(captions, seeds, sampling, negative, size)))

    def draw(
        self,
        captions: Sequence[str],
        seeds: Sequence[int] | None = None,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        negative: str = "",
        size: Size | None = None,
        after_call: Callable[[], None] = lambda: None,
    ) -> Iterator[Images]:
        """Generate the same images batch by batch.

        `after_call` is called after each call of the denoiser; there are `sampling.model_calls` of
        them per batch. The last batch is padded, because sums in a batch of another size may round
        differently.
        """
        seeds = range(len(captions)) if seeds is None else seeds
        if len(seeds) != len(captions):
            count = len(captions)
            raise ValueError(f"{count} captions need {count} seeds, got {len(seeds)}")
        denoise = counted(self.guided(sampling, negative), after_call)
        levels = noise_levels(sampling.steps)
        for start in range(0, len(captions), self.batch_size):
            indices = range(start, min(start + self.batch_size, len(captions)))
            rows = [indices[i % len(indices)] for i in range(self.batch_size)]
            noise = self.noise([seeds[i] for i in rows], size)
            text = self.text([captions[i] for i in rows])
            latents = self.inference.sample(sampling.solver, denoise, noise, text, levels)
            yield self.decode(latents)[: len(indices)]

    @property
    def device(self) -> str:
        """Where the models are: cpu, cuda, cuda:1."""
        return self.inference.device

    @property
    def batch_size(self) -> int:
        """Number of images in a batch."""
        return _BATCH_ON_CPU if self.device == "cpu" else _TOGETHER_ON_GPU

    def noise(self, seeds: Sequence[int], size: Size | None = None) -> Tensor:
        """Unit noise [n, c, y, x], each row from its own seed and equal on every device.

        The size is that of the training unless one is passed. Raises SizeError if the model cannot
        generate it.
        """
        config, downscale = self.denoiser.config, self.codec.downscale
        if size and (problem := size_problem(size, downscale * config.patch_size)):
            raise SizeError(problem)
        width, height = (side // downscale for side in size) if size else (config.latent_size,) * 2
        shape = (config.latent_channels, height, width)
        rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(rows).to(self.device)

    def text(self, captions: Sequence[str]) -> Tensor:
        """Text [n, t] or [n, l, t].

        Each caption is encoded alone and padded to a fixed length, so that it does not depend on
        the others.
        """
        encoded = {caption: self.text_encoder([caption]) for caption in dict.fromkeys(captions)}
        if self.text_encoder.form == "tokens":
            longest = self.text_encoder.longest
            encoded = {
                caption: F.pad(text, (0, 0, 0, longest - text.shape[1]))
                for caption, text in encoded.items()
            }
        return torch.cat([encoded[caption] for caption in captions])

    def guided(
        self, sampling: SamplingSettings, negative: str = "", denoise: DenoiseFn | None = None
    ) -> DenoiseFn:
        """The denoiser, or `denoise` in its place, with guidance."""
        away_from = self.text([negative]) if negative else None
        return guided(
            denoise or self.inference.denoiser(self.denoiser),
            sampling.guidance,
            sampling.guidance_interval,
            away_from,
        )

    def decode(self, latents: Tensor) -> Images:
        """Scaled latents [n, c, y, x] -> uint8 [n, h, w, 3]."""
        decode = self.inference.threads.by_rows(self.codec.decode)
        images: Images = decode(latents).permute(0, 2, 3, 1).cpu().numpy()
        return images

    def encode(self, images: Images) -> Tensor:
        """Images, uint8 [n, h, w, 3] -> scaled latents [n, c, y, x]."""
        return self.codec.encode(torch.from_numpy(images).permute(0, 3, 1, 2))


def load_generator(
    denoiser: Path,
    vae: str,
    text_model: str,
    device: str,
    *,
    precision: Precision = "auto",
    safetensors_only: bool = False,
) -> ImageGenerator:
    """Load all three models to a device. `text_model` is a CLIP or another text encoder; the layer,
    the longest caption and the template are those that the denoiser was trained with.

    A denoiser that was trained on latents of another scale, such as an imported one, generates
    latents of that scale, and the codec decodes them. The weights cannot be converted to our scale:
    noise has a spread of 1 at any scale of latents, which is thus part of what a noise level means.

    Raises:
        CheckpointError: the denoiser cannot be read or does not fit the encoders.
        EncoderError: an encoder cannot be loaded, or `safetensors_only` is true and its weights
            are in another format.
    """
    device = use_device(device)
    model = load_denoiser(denoiser, device)
    check_encoders(denoiser, vae, text_model)
    text_encoder = load_text_encoder(
        text_model,
        device,
        model.config.text,
        read_text_settings(denoiser),
        safetensors_only=safetensors_only,
    )
    codec = load_image_codec(vae, device, safetensors_only=safetensors_only)
    if scaling := read_latent_scaling(denoiser):
        codec = replace(codec, scaling_factor=scaling, shift=0.0)
    _check_shapes(denoiser, model.config, text_encoder, codec)
    return ImageGenerator(model, text_encoder, codec, inference_on(device, precision))


def _check_shapes(
    path: Path, config: DenoiserConfig, text_encoder: TextEncoder, codec: ImageCodec
) -> None:
    """Raise CheckpointError if the shapes of denoiser and encoders differ.

    The file of a denoiser may not name its encoders, so the names alone are not enough.
    """
    problems = [
        f"  it takes {what} of {takes} {unit}, but these produce {produced}"
        for what, takes, produced, unit in (
            ("latents", config.latent_channels, codec.latent_channels, "channels"),
            ("text embeddings", config.text_dim, text_encoder.dim, "numbers"),
        )
        if takes != produced
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit these encoders:\n" + "\n".join(problems))
