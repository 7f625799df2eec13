"""Diffusers pipeline from captions to images, whose source is part of every export.

b batch   c latent channels   z latent size   t text width   l text tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tld_model.config import SamplingSettings, SolverName
from tld_model.encoders.text_states import TextRecipe, encode_captions, tokenize_captions
from tld_model.encoders.vae_config import VaeConfig
from tld_model.latent_scaling import unpatchify, unscale_latents
from tld_model.sampler import SOLVERS, guided, noise_levels, sample

_OUTPUT_TYPES = ("pil", "np", "latent")


class TldPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Text-to-image pipeline with a latent diffusion transformer.

    `sampling` holds the defaults of a call, as fields of SamplingSettings. `encodings` has two
    entries. `latents` holds the scale and shift of the transformer's latents, which are
    (raw - shift) * scale of the VAE's: numbers, or lists with one for each channel. `text` says how
    captions are encoded, as fields of TextRecipe.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"

    def __init__(
        self,
        transformer: nn.Module,
        vae: ModelMixin,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        sampling: dict[str, Any] | None = None,
        encodings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer
        )
        self.register_to_config(
            sampling=sampling or {},
            encodings={
                "latents": {"scale": 1.0, "shift": 0.0},
                "text": {"limit": 77, "pooling": "projection"},
            }
            | (encodings or {}),
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,  # noqa: FBT001, FBT002
        solver: SolverName | None = None,
        guidance_interval: tuple[float, float] | None = None,
    ) -> Any:
        """Generate num_images_per_prompt images of each prompt, in one batch.

        Settings that are not passed are those of the model's evaluation. `generator` is a list with
        one generator per image, so that each image depends on its own seed alone, or a single one,
        which yields the noise of the first image, then of the second, and so on. `solver` is
        dpmpp_2m, unipc, heun, euler or ddim. Guidance applies between the two noise levels of
        `guidance_interval` and points away from the negative prompt. `output_type` is pil, np
        (float [b, h, w, 3] from 0 to 1) or latent ([b, c, z, z]). Raises ValueError if an argument
        is invalid.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        prompts = [each for each in prompts for _ in range(num_images_per_prompt)]
        options = {
            "steps": num_inference_steps,
            "guidance": guidance_scale,
            "solver": solver,
            "guidance_interval": guidance_interval,
        }
        overrides: dict[str, Any] = {
            name: value for name, value in options.items() if value is not None
        }
        sampling = replace(SamplingSettings(**self.config.sampling), **overrides)
        self._check(
            sampling, len(prompts), {"height": height, "width": width}, generator, output_type
        )

        noise = self._noise(len(prompts), generator)  # [b, c, z, z]
        text = self._encode(prompts)  # [b, t] or [b, l, t]
        negative = (
            self._encode([negative_prompt]) if negative_prompt else None
        )  # [1, t] or [1, l, t]
        latents = self._sample(sampling, noise, text, negative)  # [b, c, z, z]
        images = latents if output_type == "latent" else self._decode(latents, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _check(
        self,
        sampling: SamplingSettings,
        count: int,
        sides: dict[str, int | None],
        generator: Any,
        output_type: str,
    ) -> None:
        edge = self.transformer.denoiser.config.latent_size * self._vae_config.downscale
        problems = [
            f"{name} {side}: this model generates {edge}x{edge}"
            for name, side in sides.items()
            if side not in (None, edge)
        ]
        if isinstance(generator, list) and len(generator) != count:
            problems.append(
                f"{len(generator)} generators for {count} images; pass one per image, or a "
                "single one for all"
            )
        if output_type not in _OUTPUT_TYPES:
            problems.append(f"output_type {output_type!r} is not one of {', '.join(_OUTPUT_TYPES)}")
        if sampling.solver not in SOLVERS:
            problems.append(f"solver {sampling.solver!r} is not one of {', '.join(SOLVERS)}")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def _vae_config(self) -> VaeConfig:
        return VaeConfig(**{**self.vae.config, "_class_name": type(self.vae).__name__})

    def _noise(
        self, count: int, generator: torch.Generator | list[torch.Generator] | None
    ) -> Tensor:
        config = self.transformer.denoiser.config
        shape = (count, config.latent_channels, config.latent_size, config.latent_size)
        noise: Tensor = randn_tensor(shape, generator, self._execution_device, torch.float32)
        return noise

    def _encode(self, prompts: list[str]) -> Tensor:
        """Pooled embeddings [b, t]; or states of tokens [b, l, t], which are zero after the end of
        a caption."""
        recipe = TextRecipe(**self.config.encodings["text"])
        tokens = tokenize_captions(self.tokenizer, prompts, recipe)
        pooled, states = encode_captions(self.text_encoder, tokens, recipe)
        text = states if self.transformer.denoiser.config.text == "tokens" else pooled
        return text.to(self._execution_device)

    def _sample(
        self, sampling: SamplingSettings, noise: Tensor, text: Tensor, negative: Tensor | None
    ) -> Tensor:
        levels = noise_levels(sampling.steps)
        with self.progress_bar(
            total=2 * len(levels) - 1 if sampling.solver == "heun" else len(levels)
        ) as bar:

            def denoise(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
                bar.update()
                clean: Tensor = self.transformer(noisy, sigma, text)
                return clean

            low, high = sampling.guidance_interval
            return sample(
                sampling.solver,
                guided(denoise, sampling.guidance, (low, high), negative),
                noise,
                text,
                levels,
            )

    def _decode(self, latents: Tensor, output_type: str) -> Any:
        """Images of latents [b, c, z, z]."""
        config, scaling = self._vae_config, self.config.encodings["latents"]
        if self.vae.dtype == torch.float16 and not config.allows_half_precision:
            self.vae.to(torch.float32)  # it may overflow
        raw = unscale_latents(latents, scaling["scale"], scaling["shift"])
        raw = unpatchify(raw, config.patch)
        signed = self.vae.decode(raw.to(self.vae.dtype)).sample.float()
        pixels = ((signed + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)  # [b, 3, h, w]
        images = pixels.permute(0, 2, 3, 1).cpu().numpy()  # [b, h, w, 3]
        return (
            [Image.fromarray(image) for image in images] if output_type == "pil" else images / 255
        )
