"""The recipe of an image shard: a digest by which another output can reuse its files."""

from __future__ import annotations

from data_catalog.storage.digests import digest_of
from data_catalog.url_table.table import UrlShard
from pipeline.config.download import DownloadConfig
from pipeline.stages.dag import STAGES
from pipeline.stages.output_settings import output_settings

# Settings that choose the rows of a shard, or exclude some of them later, do not change its images.
_IRRELEVANT_SETTINGS = {
    *(
        "limit",
        "url_column",
        "caption_column",
        "split_column",
        "min_caption_chars",
        "max_caption_chars",
    ),
    *("more_caption_columns", "keep_columns", "drop_duplicates", "key_column"),
}


def recipe_of(shard: UrlShard, config: DownloadConfig) -> str:
    """Digest of everything that determines the images of a shard, except the web: its rows, the
    files that these name, and settings."""
    spec = STAGES["download"]
    settings = output_settings("download", config, _IRRELEVANT_SETTINGS)
    content = [spec.version, settings, shard.pairs.to_pydict()]
    return digest_of([*content, shard.version] if shard.version else content)
