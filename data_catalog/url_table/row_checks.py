"""Validation of URL table rows: which rows can be used, and why the others are rejected.

The checks work on whole columns of strings, without files or network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from data_catalog.url_table.rows import BAD_ROW, LONGEST_CELL

SPLITS = ("train", "held_out")
USABLE = ""
NO_URL, NOT_HTTP, NO_PARSE = "no URL", "URL that is not http or https", "URL that cannot be parsed"
WHITE_SPACE, LONG_URL = "white space in the URL", "URL too long"
NOT_UTF8 = "text that is not UTF-8"
NO_CAPTION, TOO_SHORT, TOO_LONG = "empty caption", "caption too short", "caption too long"
BAD_SPLIT = f"split that is not {' or '.join(SPLITS)}"
TWICE = "URL that stands in the table twice"
# Of images that exist already, and of captions from a table of their own.
NO_IMAGE, IMAGE_TWICE = "sample without an image", "image that is listed twice"
NO_MATCH = "key that the table of captions lacks"
REASONS = (
    *(USABLE, NO_URL, NOT_UTF8, LONG_URL, NOT_HTTP, NO_PARSE, WHITE_SPACE),
    *(NO_CAPTION, TOO_SHORT, TOO_LONG, BAD_SPLIT, TWICE, BAD_ROW),
    *(NO_IMAGE, IMAGE_TWICE, NO_MATCH),
)

# Matches nearly every URL. The others need a closer look.
_PLAIN_URL = r"^(?i:https?)://[A-Za-z0-9_-][A-Za-z0-9._-]*(:[0-9]{1,4})?([/?#][!-~]*)?$"
_HOST_AND_REST = re.compile("([^/]*//[^/?#]*)(.*)", re.DOTALL)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

RejectReasons = NDArray[np.int8]  # for each row its index in REASONS


@dataclass(frozen=True, slots=True)
class RowRules:
    """What a usable row must meet."""

    min_caption_chars: int = 1
    max_caption_chars: int = 1000  # captions above LONGEST_CELL bytes are always too long
    from_web: bool = True  # False: the URLs are addresses of images that exist already
    captions_by_key: bool = False  # a caption that is null had no match in a table of captions


@dataclass(slots=True)
class SeenUrls:
    """The set of URLs seen so far, as 64-bit hashes (XXH3) in sorted runs: 8 bytes per URL.

    A collision costs one row, which is rejected as a duplicate URL. The probability that any
    collision happens is 1 in 92,000 with 20 million URLs, and 1 in 37 with a billion.
    """

    # Each run is at most half as long as the one before.
    _runs: list[NDArray[np.uint64]] = field(default_factory=list)

    def add(self, urls: pa.Array) -> NDArray[np.bool_]:
        """Add URLs. Returns True for each that was seen before, in this call or an earlier one."""
        hashes = np.fromiter(
            map(xxh3_64_intdigest, urls.cast(pa.binary()).to_numpy(zero_copy_only=False)),
            np.uint64,
            len(urls),
        )
        distinct, first = np.unique(hashes, return_index=True)
        before = np.zeros(len(distinct), bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, distinct), len(run) - 1)
            before |= run[places] == distinct
        self._keep(distinct[~before])
        repeated = np.ones(len(urls), bool)
        repeated[first[~before]] = False
        return repeated

    def _keep(self, run: NDArray[np.uint64]) -> None:
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.concatenate((self._runs.pop(), run))
            run.sort(kind="stable")  # timsort merges two sorted runs in one pass
        if len(run):
            self._runs.append(run)


def with_clean_urls(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows with cleaned URLs: no white space around them, and %20 for each space after the host, as
    browsers do."""
    urls = pc.utf8_trim_whitespace(rows["url"])
    spaced = pc.fill_null(pc.match_substring(urls, " "), False)
    if pc.any(spaced).as_py():
        quoted = [_with_quoted_spaces(url) for url in urls.filter(spaced).to_pylist()]
        urls = pc.replace_with_mask(urls, spaced, pa.array(quoted, pa.string()))
    return rows.set_column(rows.schema.get_field_index("url"), "url", urls)


def _with_quoted_spaces(url: str) -> str:
    """A URL with %20 for each space, except spaces in its host, which make the URL invalid."""
    parts = _HOST_AND_REST.fullmatch(url)
    return parts[1] + parts[2].replace(" ", "%20") if parts else url


def check_rows(rows: pa.RecordBatch, rules: RowRules, seen: SeenUrls) -> RejectReasons:
    """The first reason to reject each row, in the order of REASONS. Usable URLs are added to
    `seen`."""
    verdicts = np.zeros(rows.num_rows, np.int8)

    def reject(cause: str, where: pa.Array) -> None:
        mask = where.to_numpy(zero_copy_only=False)
        verdicts[mask & (verdicts == 0)] = REASONS.index(cause)

    url = pc.fill_null(rows["url"], "")
    caption = pc.utf8_trim_whitespace(pc.fill_null(rows["caption"], ""))
    length = pc.utf8_length(caption)
    too_long = pc.or_(_over_long(caption), pc.greater(length, rules.max_caption_chars))

    reject(NO_URL if rules.from_web else NO_IMAGE, pc.equal(pc.utf8_trim_whitespace(url), ""))
    reject(LONG_URL, _over_long(url))
    reject(
        NOT_UTF8,
        pc.or_(pc.match_substring(url, _REPLACEMENT), pc.match_substring(caption, _REPLACEMENT)),
    )
    if rules.from_web:
        plain = pc.match_substring_regex(url, _PLAIN_URL).to_numpy(zero_copy_only=False)
        odd = np.flatnonzero(~plain & (verdicts == 0))
        verdicts[odd] = [
            REASONS.index(_closer_look(text)) for text in url.take(pa.array(odd)).to_pylist()
        ]
    if rules.captions_by_key:
        reject(NO_MATCH, pc.is_null(rows["caption"]))
    reject(NO_CAPTION, pc.equal(length, 0))
    reject(TOO_SHORT, pc.less(length, rules.min_caption_chars))
    reject(TOO_LONG, too_long)
    reject(BAD_SPLIT, pc.invert(pc.is_in(pc.fill_null(rows["split"], ""), pa.array(["", *SPLITS]))))

    usable = np.flatnonzero(verdicts == 0)
    twice = REASONS.index(TWICE if rules.from_web else IMAGE_TWICE)
    verdicts[usable[seen.add(url.take(pa.array(usable)))]] = twice
    return verdicts


def usable_captions(captions: pa.Array, rules: RowRules) -> pa.Array:
    """Further captions, with null for each that cannot be used, by the same rules as those of
    `check_rows` for the first caption. Only an unusable first caption rejects its row."""
    text = pc.fill_null(captions, "")
    length = pc.utf8_length(pc.utf8_trim_whitespace(text))
    long_enough = pc.greater_equal(length, rules.min_caption_chars)  # 1 at least
    fits = pc.and_(long_enough, pc.less_equal(length, rules.max_caption_chars))
    unfit = pc.or_(_over_long(text), pc.match_substring(text, _REPLACEMENT))
    return pc.if_else(pc.and_not(fits, unfit), text, None)


def _over_long(texts: pa.Array) -> pa.Array:
    return pc.greater(pc.binary_length(texts), LONGEST_CELL)


def _closer_look(url: str) -> str:
    """The reason to reject a URL that is not plain: non-ASCII letters, a password, IPv6, white
    space and so on. USABLE if there is none."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return NO_PARSE
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return NOT_HTTP
    if any(c.isspace() for c in url):
        return WHITE_SPACE
    return USABLE if host and url.isprintable() else NO_PARSE
