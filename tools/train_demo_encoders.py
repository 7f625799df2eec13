"""Training of the small encoders that ship with the project.

`python -m tools.train_demo_encoders` trains an AutoencoderKL and a CLIPModel with its own tokenizer
on drawn shapes, from fixed seeds, on a CPU, and scores them on combinations of attributes that
neither has seen. Both are built with the libraries' own classes, so that the results load like any
published encoder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from data_catalog.shapes import dataset as shapes
from data_catalog.shapes.captions import ATTRIBUTE_NAMES
from tld_model.encoders.names import SHIPPED_ENCODERS
from tools.demo_encoder_scores import measure_psnr, measure_retrieval, normalized, to_tensor
from tools.encoder_training import Recipe, fit
from tools.partial_captions import embed_captions, mean_embeddings

# The scores that they reached are in BENCHMARKS.md.
VAE_RECIPE = Recipe(steps=16_000, batch_size=16, learning_rate=2.0e-3, seed=1)
CLIP_RECIPE = Recipe(steps=2600, batch_size=96, learning_rate=1.0e-3, seed=2)
PARTIAL_RECIPE = Recipe(steps=600, batch_size=128, learning_rate=1.0e-3, seed=3)


def train_vae(recipe: Recipe, report: Callable[[str], None]) -> AutoencoderKL:
    """Train a VAE from 64x64 pixels to 4x8x8 latents. The loss is L1 + 2 MSE + a small KL
    divergence (Kingma and Welling, 2014), whose noise keeps the latents smooth."""
    torch.manual_seed(recipe.seed)
    levels = (16, 32, 64, 64)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(levels),
        up_block_types=("UpDecoderBlock2D",) * len(levels),
        block_out_channels=levels,
        layers_per_block=1,
        norm_num_groups=1,  # with more groups, these few channels cannot encode brightness
        latent_channels=4,
        mid_block_add_attention=False,
        sample_size=shapes.EDGE,
    ).to(memory_format=torch.channels_last)
    batches = _image_batches(recipe)

    def loss() -> Tensor:
        pixels = (to_tensor(next(batches)) * 2 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pixels).latent_dist
            error = vae.decode(posterior.sample()).sample.float() - pixels
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        total: Tensor = error.abs().mean() + 2 * error.square().mean() + 1e-4 * divergence
        return total

    def progress() -> str:
        return f"PSNR {measure_psnr(vae, _unseen(64)):.2f} dB on unseen images"

    _fit(vae, loss, recipe, report, progress, clip_norm=0.5)
    vae.eval()
    with torch.no_grad():
        pixels = to_tensor(
            [drawing.pixels() for drawing in shapes.drawings(512, held_out=False, seed=9)]
        )
        scale = vae.encode(pixels * 2 - 1).latent_dist.mean.std()
    vae.register_to_config(scaling_factor=round(1 / float(scale), 5))
    return vae


def train_clip(recipe: Recipe, report: Callable[[str], None]) -> tuple[CLIPModel, CLIPTokenizer]:
    """Train a small CLIP with the contrastive loss (Radford et al., 2021) on images and full
    captions of shapes."""
    torch.manual_seed(recipe.seed)
    tokenizer = build_tokenizer([attributes.caption for attributes in shapes.combinations()])
    tower = {"intermediate_size": 256, "num_attention_heads": 4}
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "max_position_embeddings": 32,
    }
    vision = {
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "image_size": shapes.EDGE,
        "patch_size": 8,
    }
    clip = CLIPModel(
        CLIPConfig(
            text_config={**text, **tower, **special, "projection_dim": 64},
            vision_config={**vision, **tower, "projection_dim": 64},
            projection_dim=64,
        )
    )
    batches = _contrastive_batches(recipe)

    def loss() -> Tensor:
        batch = next(batches)
        tokens = tokenizer([d.attributes.caption for d in batch], padding=True, return_tensors="pt")
        pixels = normalized(batch)
        result: Tensor = clip(**tokens, pixel_values=pixels, return_loss=True).loss
        return result

    def progress() -> str:
        accuracy = measure_retrieval(clip, tokenizer, _unseen(300))
        return f"retrieval top-1 {accuracy:.3f} among 100 unseen captions"

    _fit(clip, loss, recipe, report, progress, clip_norm=1.0)
    return clip.eval(), tokenizer


def teach_partial_captions(
    clip: CLIPModel, tokenizer: CLIPTokenizer, recipe: Recipe, report: Callable[[str], None]
) -> None:
    """Train the text half until the embedding of a partial caption is the mean of those of the full
    captions that it stands for. Embeddings of images stay what they were, those of full captions
    nearly. The loss is the squared error of the embeddings, half of the captions being full."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    means = mean_embeddings(clip, tokenizer)
    seen = [a.caption for a in shapes.combinations() if not a.held_out]
    with torch.no_grad():
        full = dict(zip(seen, embed_captions(clip, tokenizer, seen), strict=True))

    def loss() -> Tensor:
        half = recipe.batch_size // 2
        goals = [
            (caption, goal[caption])
            for goal in (full, means)
            for caption in rng.choice(list(goal), half).tolist()
        ]
        embeddings = embed_captions(clip, tokenizer, [caption for caption, _ in goals])
        return F.mse_loss(embeddings, torch.stack([target for _, target in goals]))

    def progress() -> str:
        accuracy = measure_retrieval(clip, tokenizer, _unseen(300))
        return f"retrieval top-1 {accuracy:.3f} among 100 unseen full captions"

    text_half = nn.ModuleList([clip.text_model, clip.text_projection])
    _fit(text_half, loss, recipe, report, progress, clip_norm=1.0)


def build_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """A CLIP tokenizer with merges from the captions. Every byte is a token, so any text can be
    tokenized."""
    raw = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    words = sorted({word for caption in captions for word in caption.split()})
    raw.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=1000, end_of_word_suffix="</w>", show_progress=False)
    )
    merges: Any = [tuple(merge) for merge in json.loads(raw.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [
        *alphabet,
        *(letter + "</w>" for letter in alphabet),
        *("".join(merge) for merge in merges),
    ]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=32)


def _unseen(count: int) -> list[shapes.Drawing]:
    return list(shapes.drawings(count, held_out=True, seed=77))


def _image_batches(recipe: Recipe) -> Iterator[list[shapes.Pixels]]:
    stream = shapes.drawings(recipe.steps * recipe.batch_size, held_out=False, seed=recipe.seed)
    while True:
        yield [next(stream).pixels() for _ in range(recipe.batch_size)]


def _contrastive_batches(recipe: Recipe) -> Iterator[list[shapes.Drawing]]:
    """Batches in which half of the drawings differ from the other half in one attribute, which is
    the hard part of the task."""
    rng = np.random.default_rng(recipe.seed)
    pool = [attributes for attributes in shapes.combinations() if not attributes.held_out]
    known = set(pool)
    colours = list(shapes.COLOURS)
    values = {"size": list(shapes.SIZES), "colour": colours, "shape": list(shapes.SHAPES),
              "position": list(shapes.POSITIONS), "background": colours}  # fmt: skip
    while True:
        batch: dict[shapes.Attributes, None] = {}
        while len(batch) < recipe.batch_size:
            base = pool[rng.integers(len(pool))]
            name = "shape" if rng.random() < 0.25 else str(rng.choice(ATTRIBUTE_NAMES))
            other = replace(base, **{name: str(rng.choice(values[name]))})
            batch[base] = None
            if other in known:
                batch[other] = None
        chosen = list(batch)[: recipe.batch_size]
        yield [shapes.Drawing(attributes, seed=int(rng.integers(2**48))) for attributes in chosen]


def _fit(
    model: nn.Module,
    loss_of_batch: Callable[[], Tensor],
    recipe: Recipe,
    report: Callable[[str], None],
    progress: Callable[[], str],
    clip_norm: float,
) -> None:
    for step in fit(model, loss_of_batch, recipe, clip_norm):
        if step.number % 250 == 0 or step.number == recipe.steps:
            report(
                f"step {step.number}/{recipe.steps}  loss {step.loss.item():.4f}  {progress()}  "
                f"{step.seconds / 60:.1f} min"
            )


def main() -> None:
    """Train one of the encoders and save it."""
    parser = argparse.ArgumentParser(
        description="Train the small encoders that ship with tld, on a CPU."
    )
    parser.add_argument("which", choices=["vae", "clip", "clip-short"])
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write config and safetensors to"
    )
    arguments = parser.parse_args()
    report = partial(print, flush=True)
    if arguments.which == "vae":
        vae = train_vae(VAE_RECIPE, report)
        vae.save_pretrained(arguments.out)
    else:
        if arguments.which == "clip":
            clip, tokenizer = train_clip(CLIP_RECIPE, report)
        else:
            shipped = SHIPPED_ENCODERS["shapes-clip"]
            clip = CLIPModel.from_pretrained(shipped)
            tokenizer = CLIPTokenizer.from_pretrained(shipped)
            teach_partial_captions(clip, tokenizer, PARTIAL_RECIPE, report)
        clip.save_pretrained(arguments.out)
        tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
