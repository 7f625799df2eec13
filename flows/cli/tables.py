"""Longer texts and tables of the command line: download plans, the catalog, benchmark results."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_catalog.redaction import redacted
from flows.terminal.console import say
from flows.terminal.duration import duration
from flows.terminal.size import size
from flows.terminal.text_table import TextTable

if TYPE_CHECKING:
    from data_catalog.sources import Source
    from pipeline.config.run import RunConfig
    from pipeline.download.plan import DownloadPlan

_EVERY_S = 3.0


@dataclass(slots=True)
class TableProgress:
    """Progress of reading a table, printed on stderr every few seconds. A small table is read
    before the first line is due."""

    due: float = field(default_factory=lambda: time.monotonic() + _EVERY_S)

    def __call__(self, rows: int, total: int | None) -> None:
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + _EVERY_S
            of = f" of {total:,}" if total else ""
            say(f"read {rows:,}{of} rows …")


def plan_page(settings: RunConfig, plan: DownloadPlan) -> str:
    """A download plan as text."""
    counts, download = plan.account, settings.download
    answered = "if every URL answers" if download.urls else "if every image can be used"
    if download.source:
        rows = "of the URLs answer" if download.urls else "of the images can be used"
        answered = f"if {plan.success:.0%} {rows}, as expected of {download.source}"
    facts = [
        ("images" if download.images else "table", redacted(download.place)),
        ("rows", f"{counts.rows:,}"),
        ("usable", f"{counts.usable:,}  ({counts.usable / counts.rows:.1%})"),
        *(("", f"{count:,} × {cause}") for cause, count in counts.rejected.most_common()),
        ("shards", f"{plan.shards:,} of {download.shard_size:,} rows"),
        (
            "finished",
            f"{plan.finished:,} of them, in {plan.folder}" if plan.finished else "none yet",
        ),
        *(_hosts(plan) if download.urls else ()),
        (
            "images",
            f"about {size(plan.image_bytes)} as {download.image_size} px {download.image_format}, "
            f"{answered}",
        ),
        ("encodings", f"about {size(plan.encoding_bytes)}"),
        ("disk", f"{size(plan.disk_free)} free at {settings.folder.absolute()}"),
        (
            "time",
            f"about {duration(plan.seconds)} for what is missing, assuming "
            f"{plan.urls_per_s:g} images per second with {download.workers} workers"
            + (f" of {download.threads} connections each" if download.urls else ""),
        ),
    ]
    if plan.image_bytes + plan.encoding_bytes > plan.disk_free:
        facts.append(
            (
                "warning",
                "this does not fit on the disk; set root to a larger disk, or set download.limit",
            )
        )
    return "\n".join(f"{name:10} {text}" for name, text in facts)


def _hosts(plan: DownloadPlan) -> Iterator[tuple[str, str]]:
    """The hosts with the most URLs."""
    missed = plan.hosts.missed
    undercount = f", each undercounted by {missed:,} at most" if missed else ""
    yield "hosts", f"with the most URLs{undercount}"
    for host, count in plan.hosts.top():
        yield "", f"{count:>12,}  {count / plan.account.usable:6.1%}  {host}"


def sources_table(sources: Iterable[Source]) -> TextTable:
    """The catalog, smallest data set first."""
    table = TextTable("name", "rows", "expect", "what it is")
    for source in sorted(sources, key=lambda source: source.rows):
        table.add_row(source.name, _rows(source.rows), f"{source.success:.0%}", source.summary)
    return table


def source_page(source: Source) -> str:
    """A description of a data set, with the commands that get it and run it."""
    columns = f"caption in {source.columns.caption!r}"
    if source.columns.url:
        columns = f"URL in {source.columns.url!r}, {columns}"
    rows = "URLs to answer" if source.urls else "images to be used"
    facts = {
        "rows": _rows(source.rows),
        "licence": source.licence,
        "homepage": source.homepage,
        "cite": source.citation,
        "files": source.files,
        "columns": columns
        + (f", split in {source.columns.split!r}" if source.columns.split else ""),
        "expect": f"{source.success:.0%} of the {rows}; {source.expect}",
    }
    page = [
        f"{source.name}: {source.summary}",
        "",
        *(f"  {name:9} {fact}" for name, fact in facts.items()),
        "",
    ]
    run = source.run or f"tld-100m download.source={source.name}"
    if source.get:
        page += [
            f"Put the {'table' if source.urls else 'images'} at {source.place}:",
            *(f"  {line}" for line in source.get.strip().splitlines()),
            "",
        ]
    page += ["Estimate the cost, try 2,000 rows, then run it all:", f"  tld download {run} --plan"]
    page += [f"  tld run {run} download.limit=2000 --until encode", f"  tld run {run}"]
    return "\n".join(page)


def bench_page(results: dict[str, Any]) -> tuple[TextTable, str]:
    """The results of `tld bench`: a table of images per second, and lines that explain them."""
    table = TextTable("images/s", "median", "slowest", "fastest")
    for name, speed in results["images_per_s"].items():
        table.add_row(
            name.replace("_", " "),
            *(f"{speed[key]:.2f}" for key in ("median", "slowest", "fastest")),
        )
    lines = [results["machine"]]
    if "encode_over_bare_encoders" in results:
        lines.append(
            f"encode keeps its encoders busy {results['encode_over_bare_encoders']:.0%} of the time"
        )
    if loader := results.get("loader"):
        memory = loader["memory_mib"]
        lines.append(
            f"the loader starts on {loader['pairs']:,} pairs in {loader['start_s']} s and uses "
            f"{memory['own']} MiB of memory and {memory['mapped']} MiB of mapped files; the peak "
            f"is {memory['peak']} MiB"
        )
    if "load_over_train" in results:
        lines.append(
            f"it delivers {results['load_over_train']:,.0f} times as many images as training "
            "consumes"
        )
    if train := results.get("train"):
        peaks = ", ".join(f"{name} {value:,}" for name, value in train["peak_gflop_per_s"].items())
        lines += [
            f"this device multiplies matrices at GFLOP/s: {peaks}",
            f"training with batch size {train['batch_size']} (configured: "
            f"{train['configured_batch_size']}) reaches {train['flop_utilisation']:.1%} of the "
            f"{train['arithmetic']} peak: {train['gflop_per_image']} GFLOP per image for matrix "
            "products and convolutions, with backward counted as twice forward",
            *_beside_original(train),
            f"training uses {train['memory_mib']:,} MiB of memory"
            + (f", {gpu:,} MiB on the device" if (gpu := train.get("device_memory_mib")) else "")
            + f", with train.accumulate={train['accumulate']}",
            *memory_lines(train["step_memory"]),
        ]
    if "sample_images_per_s" in results:
        lines.append(
            f"denoiser and decoder together produce {results['sample_images_per_s']} images/s"
        )
    if hours := results["projected_hours"]:
        each = ", ".join(f"{name} {value:.2f}" for name, value in hours.items())
        lines.append(f"estimated hours of this run, without download: {each}")
    return table, "\n".join(lines)


def _beside_original(train: dict[str, Any]) -> list[str]:
    """A line on the original project's step, if it was measured."""
    if not (times := train.get("times_original")):
        return []
    return [
        f"training is {times['median']:.2f} times as fast ({times['slowest']:.2f}–"
        f"{times['fastest']:.2f}) as the step of apapiu/transformer_latent_diffusion without "
        "torch.compile"
    ]


def memory_lines(fit: dict[str, Any]) -> list[str]:
    """Lines on the memory of a step as configured, and on what fits."""
    plain, recomputed = fit["without"], fit["with"]
    lines = [
        f"projected, not measured: with {fit['images_at_a_time']:,} images at a time a step needs "
        f"{plain['mib']:,} MiB, with train.checkpoint_blocks=true {recomputed['mib']:,} MiB; "
        f"{fit['usable_mib']:,} MiB of this device are usable, for {plain['most_images']:,} images "
        f"at a time, with train.checkpoint_blocks=true {recomputed['most_images']:,}"
    ]
    configured = recomputed if fit["checkpoint_blocks"] else plain
    if configured["most_images"] >= fit["images_at_a_time"]:
        return lines
    ways = [
        f"train.accumulate={configured['accumulate']}" if configured["accumulate"] else "",
        "" if fit["checkpoint_blocks"] else _with_checkpoint_blocks(fit),
    ]
    advice = ", or ".join(filter(None, reversed(ways)))
    return [
        *lines,
        f"the configured batch does not fit on this device: set {advice}"
        if advice
        else "this device has too little memory for the model with any train.accumulate",
    ]


def _with_checkpoint_blocks(fit: dict[str, Any]) -> str:
    """The settings with train.checkpoint_blocks that fit, if any do."""
    if not (parts := fit["with"]["accumulate"]):
        return ""
    more = f" train.accumulate={parts}" if parts != fit["configured_accumulate"] else ""
    return f"train.checkpoint_blocks=true{more}"


def _rows(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1_000_000 else f"{count:,}"
