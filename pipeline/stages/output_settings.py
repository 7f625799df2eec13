"""Output settings: those that an output depends on, as in its manifest and its fingerprint.

A setting that was added later counts only if it differs from its default, which must mean "as
before", so that an upgrade makes no output stale. Therefore
- a new setting needs no entry here, but a default that leaves outputs as they were without it;
- if you change the default of a setting that is not in _ALWAYS, add it there, so that both the old
  and the new default count.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Literal

from pydantic import BaseModel

from pipeline.config.section import settings_not_in_fingerprint

Section = Literal["download", "encode", "model", "train", "evaluate"]

# Section -> settings that count even at their default: all that existed when this rule was made.
_ALWAYS: dict[str, frozenset[str]] = {
    name: frozenset(settings.split())
    for name, settings in {
        "download": (
            "allowed_networks caption_column drop_duplicates image_format image_size "
            "jpeg_quality limit max_aspect_ratio max_body_mb max_caption_chars max_pixels_m "
            "min_caption_chars min_image_size more_caption_columns near_duplicate_bits "
            "respect_opt_out retries shard_size split_column timeout_s url_column "
            "url_deadline_s"
        ),
        "encode": "clip latent_clip latent_dtype min_clip_score posterior text vae",
        "model": (
            "cross_attention_heads inpainting latent_channels latent_size layers mlp_multiplier "
            "noise_embed_dim norm patch_size positions predicts qk_norm text text_dim width"
        ),
        "train": (
            "batch_size beta2 caption_weights clip_norm condition_dropout contrastive ema_decay "
            "ema_warmup held_out_fraction init_from loss_weight lr lr_schedule max_loss_weight "
            "noise_alpha noise_beta noise_levels noise_location noise_scale noise_shift "
            "optimizer precision seed steps warmup_steps weight_decay"
        ),
        "evaluate": "ema grid guidance guidance_interval prompts require seed solver steps",
    }.items()
}


def output_settings(
    name: Section, section: BaseModel, but: Set[str] = frozenset()
) -> dict[str, Any]:
    """The settings of a section on which an output depends, except those in `but`, as JSON
    values."""
    excluded = but | settings_not_in_fingerprint(type(section))
    fields = type(section).model_fields
    at_default = {
        field
        for field in fields.keys() - _ALWAYS[name]
        if getattr(section, field) == fields[field].get_default(call_default_factory=True)
    }
    return section.model_dump(mode="json", exclude=at_default | excluded)
