"""Preflight checks of the data and the models: input rows, encoders, shapes, captions, split."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from data_catalog.feature_names import CLIP
from data_catalog.input_rows import open_rows
from data_catalog.model_files import model_file
from data_catalog.scores import SCORES
from data_catalog.shapes import dataset as shapes
from data_catalog.url_table.files import UrlTableError
from pipeline.config.feature_weights import weights_problem
from pipeline.config.mix import mixed_phases
from pipeline.config.run import RunConfig
from pipeline.dataset.caption_sampling import wrong_weights
from pipeline.preflight.continuation_checks import (
    continuation_problems,
    differing_text_settings,
)
from pipeline.preflight.gate_checks import gate_problems
from pipeline.preflight.mix_checks import mix_problems
from pipeline.preflight.phase_checks import phase_problems
from pipeline.preflight.score_checks import score_problems
from tld_model.encoders.config_files import encoder_config, encoder_problem, vae_problem
from tld_model.encoders.text_config import (
    settings_problems,
    text_encoder_problem,
    text_width,
)
from tld_model.encoders.vae_config import VaeConfig


def _input_rows(config: RunConfig) -> Iterator[str]:
    try:
        open_rows(config.download.rows)
    except UrlTableError as error:
        yield f"download.{'images' if config.download.images else 'urls'}: {error}"


def _encoders(config: RunConfig) -> Iterator[str]:
    encode = config.encode
    for setting, name in encode.named_encoders.items():
        problem = encoder_problem(name)
        if setting == "vae":
            problem = problem or vae_problem(name)
        if setting == "text_encoder":
            problem = problem or text_encoder_problem(name)
        if problem:
            yield f"encode.{setting}: {problem}"
    for setting, problem in settings_problems(encode.text_model, encode.text_settings):
        yield f"encode.{setting}: {problem}"


def _without_clip(config: RunConfig) -> Iterator[str]:
    """Scores that cannot be computed without CLIP must not be required."""
    needed = [name for name in config.evaluate.require if SCORES[name].needs_clip]
    if needed and not config.encode.clip:
        setting = config.evaluate.require_setting
        yield f"{setting}: {', '.join(needed)}: needs CLIP, but encode.clip is null"


def _retrieval(config: RunConfig) -> Iterator[str]:
    """The columns of retrieval must reach the encodings."""
    evaluate, keep = config.evaluate, config.download.keep_columns
    columns = [name for name in (evaluate.concept_column, evaluate.style_column) if name]
    if missing := [name for name in columns if name not in keep]:
        yield (
            f"evaluate.concept_column, style_column: {', '.join(missing)} is not carried into the "
            f"encodings; set download.keep_columns=[{', '.join(dict.fromkeys([*keep, *columns]))}]"
        )
    if columns and not config.encode.clip and {*evaluate.features} == {CLIP}:
        yield (
            "evaluate.concept_column: retrieval compares image features, but evaluate.features has "
            "those of CLIP alone and encode.clip is null; choose other features"
        )
    required = [name for name in config.evaluate.require if name.startswith("retrieval")]
    if required and not columns:
        yield (
            f"{evaluate.require_setting}: {', '.join(required)}: needs evaluate.concept_column and "
            "evaluate.style_column"
        )


def _features(config: RunConfig) -> Iterator[str]:
    """Packages and weights of image features must be there."""
    for choice in config.evaluate.feature_choices:
        if problem := weights_problem(choice):
            yield f"evaluate.features: {problem}"


def _shapes_fit(config: RunConfig) -> Iterator[str]:
    """Compare the model with encoders on this disk; encoders on a hub are checked after their
    download."""
    if (vae := encoder_config(config.encode.vae, VaeConfig)) is not None:
        if config.encode.posterior != "mean" and not vae.has_posterior:
            yield (
                f"encode.posterior: is {config.encode.posterior}, but the VAE, of the class "
                f"{vae.class_name}, has no posterior; set encode.posterior=mean"
            )
        factor = vae.downscale
        if factor and config.download.image_size % factor:
            yield (
                f"download.image_size: {config.download.image_size} is not a multiple of {factor}, "
                "which the VAE requires"
            )
        elif factor:
            yield from _compare(config, "latent_size", config.download.image_size // factor)
        yield from _compare(config, "latent_channels", vae.channels)
    yield from _compare(config, "text_dim", text_width(config.encode.text_model, config.model.text))


def _captions(config: RunConfig) -> Iterator[str]:
    if config.model.text == "tokens" and config.encode.text != "tokens":
        yield (
            "model.text: is tokens, but the encodings will contain only pooled text; set "
            "encode.text=tokens"
        )
    columns = [one.download.caption_columns for one in mixed_phases(config).values()]
    columns = columns or [config.download.caption_columns]
    if problem := wrong_weights(columns, config.train.caption_weights):
        yield f"train.caption_weights: {problem}"


def _split(config: RunConfig) -> Iterator[str]:
    """Require held-out pairs; a split column may provide them, as in the built-in data set."""
    by_column = config.download.split_column or config.download.urls == shapes.NAME
    if config.train.held_out_fraction == 0 and not by_column:
        yield (
            "train.held_out_fraction: is 0, and no split column holds pairs out, so the model "
            "could not be evaluated; raise it, for example to 0.02, or set download.split_column"
        )


def _compare(config: RunConfig, name: str, provided: int | None) -> Iterator[str]:
    have = getattr(config.model, name)
    if provided is not None and have != provided:
        yield (
            f"model.{name}: is {have}, but the encoders produce {provided}; set "
            f"model.{name}={provided}"
        )


def _built_in_data_set(config: RunConfig) -> Iterator[str]:
    if config.download.urls == shapes.NAME and config.download.captions:
        yield "download.captions: the built-in data set has its own captions; remove this setting"
    if config.download.urls == shapes.NAME and config.download.split_column:
        yield (
            "download.split_column: the built-in data set has its own split; remove this setting"
        )
    of_open, setting = "open_attribute_diversity", config.evaluate.require_setting
    graded = [name for name in config.evaluate.require if "accuracy" in name or name == of_open]
    if graded and config.download.urls != shapes.NAME:
        yield (
            f"{setting}: {', '.join(graded)}: available only for the built-in data set "
            f"{shapes.NAME!r}"
        )
    elif of_open in graded and config.download.caption_column == "caption":
        yield (
            f"{setting}: {of_open}: the captions of download.caption_column=caption leave nothing "
            f"open; set download.caption_column=mixed, or remove it from {setting}"
        )


def _required_of_distilled(config: RunConfig) -> Iterator[str]:
    """Check distill.require as evaluate.require."""
    if config.distill is None:
        return
    for variant in config.variants[1:]:
        for check in (_without_clip, _retrieval, _built_in_data_set, gate_problems):
            yield from (text for text in check(variant) if text.startswith("distill.require"))
    if losses := [name for name in config.distill.require if name.startswith("held_out_loss")]:
        yield (
            f"distill.require: {', '.join(losses)}: is not computed of a distilled model, which "
            "predicts where a path ends; remove it"
        )


def _initial_weights(config: RunConfig) -> Iterator[str]:
    """Compare the model with the one that train.init_from names."""
    if config.train.init_from is None:
        return
    from tld_model.checkpoint import (
        CheckpointError,
        check_encoders,
        read_config,
        read_text_settings,
    )
    from tld_model.weight_transfer import incompatible_settings

    path = model_file(config.train.init_from)
    try:
        base = read_config(path)
        check_encoders(path, config.encode.vae, config.encode.text_model)
        trained_with = read_text_settings(path)
    except CheckpointError as error:
        yield f"train.init_from: {error}"
        return
    for name, have, theirs in differing_text_settings(config.encode.text_settings, trained_with):
        yield f"train.init_from: encode.text_{name} is {have!r}, but {path} has {theirs!r}"
    for name in incompatible_settings(base, config.model):
        have, theirs = getattr(config.model, name), getattr(base, name)
        yield (
            f"train.init_from: model.{name} is {have}, but {path} has {theirs}; set "
            f"model.{name}={theirs}"
        )


DATA_CHECKS: tuple[Callable[[RunConfig], Iterator[str]], ...] = (
    _input_rows,
    _encoders,
    _shapes_fit,
    _captions,
    _split,
    _built_in_data_set,
    score_problems,
    _initial_weights,
    continuation_problems,
    phase_problems,
    mix_problems,
)
# Of the evaluation, and so of the last phase alone.
REPORT_CHECKS: tuple[Callable[[RunConfig], Iterator[str]], ...] = (
    _without_clip,
    _retrieval,
    _features,
    gate_problems,
    _required_of_distilled,
)
