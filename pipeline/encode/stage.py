"""Stage 2: encoding, which runs every image through the VAE and every caption through a text
encoder once.

Each image shard becomes one encoded shard. Finished shards are not encoded again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from data_catalog.figures import EncodedShardFigures, EncoderNames, EncodingsFigures, ImagesFigures
from data_catalog.latent_figures import QuantizationFigures
from data_catalog.storage.digests import digest_of
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import Shard, evict, is_evicted, read_receipt
from data_catalog.storage.shard_reuse import ReuseShard, reuse_shard
from data_catalog.text_figures import token_statistics
from pipeline.config.encode import EncodeConfig
from pipeline.encode.latent_encoder import quantization_of
from pipeline.encode.latent_statistics import added, statistics_from
from pipeline.encode.progress import EncodeProgress
from pipeline.encode.round_trip_page import publish_round_trips, summary
from pipeline.encode.round_trips import round_trips_by_shard
from pipeline.encode.shard_encoder import ShardEncoder
from pipeline.stages.contract import MapShards, Output, StageFailed, Tracker
from pipeline.stages.dag import STAGES
from pipeline.stages.output_settings import output_settings
from pipeline.stages.progress import watch_counts
from tld_model.encoders.names import encoder_identity
from tld_model.quantize import ZERO_POINT, Quantization


def encode(
    images: Manifest,
    config: EncodeConfig,
    out: Path,
    track: Tracker,
    map_shards: MapShards,
    adopt: ReuseShard = reuse_shard,
) -> Output:
    """Encode every image shard whose encodings neither this output nor another one has."""
    recipes = _recipes(images, config)
    track.progress(0, 0, "looking for finished shards")
    own = {name: receipt for name in recipes if (receipt := read_receipt(out, name))}
    done = own | {
        name: receipt
        for name, recipe in recipes.items()
        if name not in own and (receipt := adopt(out, name, recipe))
    }
    missing = [shard.name for shard in images.shards if shard.name not in done]
    _check_no_images_evicted(images, missing)
    tars = {shard.name: shard.files[_tar(shard.name)] for shard in images.shards}
    make_worker = partial(
        ShardEncoder,
        images=images.folder,
        config=config,
        out=out,
        recipes=recipes,
        caption_columns=_caption_columns(images),
        tars=tars,
        edge=images.settings.get("image_size"),
        keep_columns=_keep_columns(images),
        round_trips=round_trips_by_shard(images.shards),
    )
    progress = EncodeProgress(track, {shard.name: shard.rows for shard in images.shards}, done)
    progress.resume(own)
    _evict_images(images, done, config)
    with watch_counts(out, progress.show):
        for receipt in map_shards(make_worker, missing, config.workers):
            done[receipt.name] = receipt
            _evict_images(images, [receipt.name], config)
            progress.finished()

    receipts = tuple(done[name] for name in sorted(done))
    filled = next((receipt for receipt in receipts if receipt.rows), None)
    if not filled:
        raise StageFailed(
            "encode: no image is left to encode; see the row counts in the download report"
            + _exclusion_reasons(receipts)
        )
    figures = _figures(images, receipts, filled, config)
    logged = figures.statistics.model_dump(
        include={"quantization_rmse", "clipped_fraction", "clip_score"}
    )
    if round_trips := publish_round_trips(out, config.vae, receipts, track):
        average, least = summary(round_trips)
        psnr = {"round_trip_psnr": average, "round_trip_psnr_min": least}
        figures, logged = figures.model_copy(update=psnr), logged | psnr
    if (tokens := figures.token_statistics) is not None:
        logged["token_rmse_sigma"] = tokens.rmse_sigma
    track.metrics(logged, step=len(receipts))
    return Output(receipts, figures.model_dump(mode="json"))


def _figures(
    images: Manifest, receipts: Sequence[Shard], filled: Shard, config: EncodeConfig
) -> EncodingsFigures:
    """The figures of the output; `filled` is any shard that has rows."""
    of_shards = [EncodedShardFigures.of(receipt) for receipt in receipts]
    of_filled = EncodedShardFigures.of(filled)
    account, columns = ImagesFigures.of(images).account, tuple(_caption_columns(images))
    several = len(columns) > 1
    return EncodingsFigures(
        encoders=EncoderNames(
            vae=config.vae,
            clip=config.clip,
            vae_identity=encoder_identity(config.vae),
            clip_identity=config.clip and encoder_identity(config.clip),
            text=of_filled.text,
        ),
        codec=of_filled.codec,
        posterior=config.posterior,
        flips=config.flips or None,
        quantization=_quantization_figures(quantization_of(config)),
        quantization_bound=quantization_of(config).bound,
        latent_shape=of_filled.latent_shape,
        text_dim=of_filled.text_dim,
        caption_columns=columns if several else None,
        captions=sum(shard.captions or 0 for shard in of_shards) if several else None,
        token_dim=of_filled.token_dim,
        longest_caption=_longest_caption(of_shards),
        token_statistics=token_statistics(
            config.token_dtype, (shard.token_sums for shard in of_shards if shard.token_sums)
        ),
        account=account.model_copy(
            update={
                "dropped": account.dropped | _dropped(receipts),
                "encoded": sum(receipt.rows for receipt in receipts),
            }
        ),
        statistics=statistics_from(added(shard.sums for shard in of_shards)),
    )


def _quantization_figures(quantization: Quantization) -> QuantizationFigures:
    return QuantizationFigures(
        dtype=quantization.dtype,
        scale=quantization.scale,
        clip=quantization.clip,
        zero_point=ZERO_POINT,
    )


def _longest_caption(shards: Iterable[EncodedShardFigures]) -> int | None:
    """Tokens of the longest caption; None if only pooled text is stored."""
    return max(
        (shard.longest_caption for shard in shards if shard.longest_caption is not None),
        default=None,
    )


def _recipes(images: Manifest, config: EncodeConfig) -> dict[str, str]:
    """Image shard -> digest of everything that determines its encodings."""
    spec = STAGES["encode"]
    settings = output_settings("encode", config)
    if config.text == "pooled":
        del settings["text"]  # keeps the recipes of shards from before this setting existed
    encoders = [encoder_identity(name) for name in config.encoders]
    more = _caption_columns(images)[1:]
    if keep := _keep_columns(images):
        more.append(f"keep_columns: {keep}")  # which a shard without pairs does not name
    return {
        shard.name: digest_of([spec.version, settings, encoders, shard.digest, *more])
        for shard in images.shards
    }


def _caption_columns(images: Manifest) -> list[str]:
    """The caption columns of the table, the main one first."""
    settings = images.settings
    return [settings.get("caption_column", "caption"), *settings.get("more_caption_columns", ())]


def _keep_columns(images: Manifest) -> list[str]:
    """The columns of the input that its tars have as text."""
    return list(images.settings.get("keep_columns", ()))


def _tar(shard: str) -> str:
    return f"{shard}.tar"


def _evict_images(images: Manifest, encoded: Iterable[str], config: EncodeConfig) -> None:
    """Delete the images of encoded shards if encode.keep_images is false."""
    if not config.keep_images:
        for name in encoded:
            evict(images.folder, _tar(name))


def _check_no_images_evicted(images: Manifest, missing: list[str]) -> None:
    """Raise StageFailed if a shard must be encoded whose images were deleted on purpose."""
    evicted = [name for name in missing if is_evicted(images.folder, _tar(name))]
    if evicted:
        raise StageFailed(
            f"encode: {len(evicted)} of {len(images.shards)} image shards ({_tar(evicted[0])} …) "
            "were deleted after they were encoded (encode.keep_images=false), but these settings "
            "need them again; fetch them again with `tld download … --force`, then encode"
        )


def _dropped(receipts: Iterable[Shard]) -> dict[str, int]:
    """The number of excluded pairs by reason."""
    dropped: Counter[str] = Counter()
    for receipt in receipts:
        dropped.update(EncodedShardFigures.of(receipt).dropped)
    return dict(dropped.most_common())


def _exclusion_reasons(receipts: Iterable[Shard]) -> str:
    return "".join(f"\n  {count} × {reason}" for reason, count in _dropped(receipts).items())
