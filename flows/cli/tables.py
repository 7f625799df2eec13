"""What the command line says at length: the plan of a download, the catalog, a data set of it, what
was measured. Knows no stage."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

from data_catalog.redaction import redacted
from flows.terminal.console import say

if TYPE_CHECKING:
    from data_catalog.sources import Source
    from pipeline.config.run import RunConfig
    from pipeline.download.plan import DownloadPlan

_EVERY_S = 3.0


@dataclass(slots=True)
class TableProgress:
    """Says on stderr every few seconds how many rows were read; a small table is read before the
    first time."""

    due: float = field(default_factory=lambda: time.monotonic() + _EVERY_S)

    def __call__(self, rows: int, total: int | None) -> None:
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + _EVERY_S
            of = f" of {total:,}" if total else ""
            say(f"read {rows:,}{of} rows …")


def plan_page(settings: RunConfig, plan: DownloadPlan) -> str:
    """A plan as a person reads it."""
    account, wanted = plan.account, settings.download
    short = f", each short by {plan.hosts.missed:,} at most" if plan.hosts.missed else ""
    answered = "if every URL answers"
    if wanted.source:
        answered = f"if {plan.success:.0%} of the URLs answer, as is expected of {wanted.source}"
    facts = [
        ("table", redacted(wanted.urls)),
        ("rows", f"{account.rows:,}"),
        ("usable", f"{account.usable:,}  ({account.usable / account.rows:.1%})"),
        *(("", f"{count:,} × {cause}") for cause, count in account.rejected.most_common()),
        ("shards", f"{plan.shards:,} of {wanted.shard_size:,} rows"),
        (
            "finished",
            f"{plan.finished:,} of them, in {plan.folder}" if plan.finished else "none yet",
        ),
        ("hosts", f"those with most URLs{short}"),
        *(
            ("", f"{count:>12,}  {count / account.usable:6.1%}  {host}")
            for host, count in plan.hosts.top()
        ),
        (
            "images",
            f"about {_size(plan.image_bytes)} as {wanted.image_size} px {wanted.image_format}, "
            f"{answered}",
        ),
        ("encodings", f"about {_size(plan.encoding_bytes)}"),
        ("disk", f"{_size(plan.disk_free)} free at {settings.folder}"),
        (
            "time",
            f"about {plan.hours:.2f} hours for what is missing, at {plan.urls_per_s:g} URLs a "
            "second: an assumption "
            f"for {wanted.workers} workers with {wanted.threads} connections each",
        ),
    ]
    if plan.image_bytes + plan.encoding_bytes > plan.disk_free:
        facts.append(
            (
                "careful",
                "this does not fit on the disk; set root to a larger one, or download.limit",
            )
        )
    return "\n".join(f"{name:10} {text}" for name, text in facts)


def sources_table(sources: Iterable[Source]) -> Table:
    """The catalog, smallest data set first."""
    table = Table(
        "name", "rows", "expect", "what it is", box=None, header_style="bold", pad_edge=False
    )
    for source in sorted(sources, key=lambda source: source.rows):
        table.add_row(source.name, _rows(source.rows), f"{source.success:.0%}", source.summary)
    return table


def source_page(source: Source) -> str:
    """What a data set is, where its table comes from, and how to run it."""
    columns = f"URL in {source.columns.url!r}, caption in {source.columns.caption!r}"
    facts = {
        "rows": _rows(source.rows),
        "licence": source.licence,
        "homepage": source.homepage,
        "cite": source.citation,
        "table": source.table,
        "columns": columns
        + (f", split in {source.columns.split!r}" if source.columns.split else ""),
        "expect": f"{source.success:.0%} of the URLs to answer; {source.expect}",
    }
    page = [
        f"{source.name}: {source.summary}",
        "",
        *(f"  {name:9} {fact}" for name, fact in facts.items()),
        "",
    ]
    run = "conf/tiny.yaml"
    if source.get:
        run = f"conf/tld-100m.yaml download.source={source.name}"
        page += [
            f"Put the table at {source.urls}:",
            *(f"  {line}" for line in source.get.strip().splitlines()),
            "",
        ]
    page += ["Look at what it would cost, take a taste, run it:", f"  tld download {run} --plan"]
    page += [f"  tld run {run} download.limit=2000 --until encode", f"  tld run {run}"]
    return "\n".join(page)


def bench_page(told: dict[str, Any]) -> tuple[Table, str]:
    """What `tld bench` measured: images a second, and a line for all that explains them."""
    table = Table(
        "images/s", "median", "slowest", "fastest", box=None, header_style="bold", pad_edge=False
    )
    for name, speed in told["images_per_s"].items():
        table.add_row(
            name.replace("_", " "),
            *(f"{speed[key]:.2f}" for key in ("median", "slowest", "fastest")),
        )
    lines = [told["machine"]]
    if "encode_over_bare_encoders" in told:
        lines.append(
            f"encode keeps its encoders busy {told['encode_over_bare_encoders']:.0%} of the time"
        )
    if loader := told.get("loader"):
        held = loader["memory_mib"]
        lines.append(
            f"the loader starts on {loader['pairs']:,} pairs in {loader['start_s']} s and holds "
            f"{held['own']} MiB, and "
            f"{held['mapped']} MiB of mapped files; {held['peak']} MiB at most"
        )
    if "load_over_train" in told:
        lines.append(f"it delivers {told['load_over_train']:,.0f} times what the training takes")
    if train := told.get("train"):
        peaks = ", ".join(f"{name} {value:,}" for name, value in train["peak_gflop_per_s"].items())
        lines += [
            f"this device multiplies matrices at GFLOP/s: {peaks}",
            f"training at batch {train['batch_size']} (configured: "
            f"{train['configured_batch_size']}) does "
            f"{train['flop_utilisation']:.1%} of the {train['arithmetic']} peak: "
            f"{train['gflop_per_image']} GFLOP an "
            "image, matrix products and convolutions, backward twice forward",
            f"it takes {train['memory_mib']:,} MiB of memory"
            + (f", {gpu:,} MiB on the device" if (gpu := train.get("device_memory_mib")) else ""),
        ]
    if "sample_images_per_s" in told:
        lines.append(f"denoiser and decoder together sample {told['sample_images_per_s']} images/s")
    if hours := told["projected_hours"]:
        each = ", ".join(f"{name} {value:.2f}" for name, value in hours.items())
        lines.append(f"this run would take, in hours, without download: {each}")
    return table, "\n".join(lines)


def _rows(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1_000_000 else f"{count:,}"


def _size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
