"""Output settings: those that an output depends on, as in its manifest and its fingerprint.

A setting that was added later counts only if it differs from its default, which must mean "as
before", so that an upgrade makes no output stale. Therefore
- a new setting needs no entry here, but a default that leaves outputs as they were without it;
- if its default is not "as before", name the value that is in _BEFORE, and in _ONLY_WITH the other
  setting without which it changes nothing;
- if you change the default of a setting that is not in _ALWAYS, add it there, so that both the old
  and the new default count.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Literal

from pydantic import BaseModel

from pipeline.config.section import settings_not_in_fingerprint

Section = Literal["download", "encode", "model", "train", "distill", "evaluate"]

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
        "distill": "ema guidance lr sample_steps steps teacher_steps",
        "evaluate": "ema grid guidance guidance_interval prompts require seed solver steps",
    }.items()
}

# The value that means "as before", of settings whose default means something else.
_BEFORE: dict[tuple[Section, str], Any] = {("encode", "token_dtype"): "float16"}
# Settings that count only while another setting has this value.
_ONLY_WITH: dict[tuple[Section, str], tuple[str, Any]] = {
    ("encode", "token_dtype"): ("text", "tokens")
}


def output_settings(
    name: Section, section: BaseModel, but: Set[str] = frozenset()
) -> dict[str, Any]:
    """The settings of a section on which an output depends, except those in `but`, as JSON
    values."""
    excluded = but | settings_not_in_fingerprint(type(section)) | _without_effect(name, section)
    fields = type(section).model_fields
    as_before = {
        field: _BEFORE[name, field]
        if (name, field) in _BEFORE
        else fields[field].get_default(call_default_factory=True)
        for field in fields.keys() - _ALWAYS[name]
    }
    unchanged = {field for field, value in as_before.items() if getattr(section, field) == value}
    return section.model_dump(mode="json", exclude=unchanged | excluded)


def _without_effect(name: Section, section: BaseModel) -> set[str]:
    """Settings that change nothing because another one has some other value than they need."""
    return {
        field
        for (of, field), (needs, value) in _ONLY_WITH.items()
        if of == name and getattr(section, needs) != value
    }
