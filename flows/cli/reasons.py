"""Text and JSON of the reasons why stages are not fresh, for `tld status --why` and `tld run
--dry-run`, and of what the run will take, which commands that run stages say first."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.terminal.console import location_of, say
from flows.terminal.duration import duration
from flows.terminal.size import size
from flows.terminal.verbosity import is_quiet

if TYPE_CHECKING:
    from data_catalog.storage.manifest import Manifest
    from pipeline.config.run import RunConfig
    from pipeline.maintenance.reasons import StageReason


def reason_lines(reason: StageReason, location: str) -> list[str]:
    """Why a stage is not fresh: a sentence, and a line for each difference."""
    lines = _sentence(reason, location)
    if checkpoint := reason.begins_with:
        lines.append(f"  begins with {checkpoint.name} of {checkpoint.parent.parent}")
    return lines


def _sentence(reason: StageReason, location: str) -> list[str]:
    title, waits = reason.status.title, " and ".join(reason.waits_for)
    if reason.status.state == "damaged":
        return [f"{title}: {reason.status.problem}"]
    if reason.status.state == "interrupted":
        at = f" at step {reason.done_steps}" if reason.done_steps else ""
        return [f"{title}: was interrupted with these settings and inputs, and resumes{at}"]
    if not reason.nearest:
        also = f", and {waits} must run first" if waits else ""
        return [f"{title}: no {reason.makes} yet in {location}{also}"]
    nearest = _described(reason.nearest)
    if not reason.changes and not waits:
        return [f"{title}: the same as {nearest}, but that folder was renamed"]
    if not reason.changes:
        return [f"{title}: only because {waits} must run first; else the same as {nearest}"]
    also = f"; {waits} must run first" if waits else ""
    return [
        f"{title}: the nearest is {nearest}{also}",
        *(f"  {change}" for change in reason.changes),
    ]


def plan_lines(
    reasons: Sequence[StageReason], settings: RunConfig, force: Collection[str] = ()
) -> list[str]:
    """What a run would do: each stage with its reason, and about what all of it takes."""
    location = location_of(settings)
    lines = [f"in {location}"]
    for reason in reasons:
        if not reason.is_fresh:
            lines += reason_lines(reason, location)
        elif _is_forced(reason, force):
            lines.append(f"{reason.status.title}: is fresh, but --force runs it again")
        else:
            lines.append(f"{reason.status.title}: is fresh")
    if not (due := _due(reasons, force)):
        return [*lines, "nothing would run"]
    return [*lines, *_cost_lines(due, settings), "nothing was started"]


def announce(
    reasons: Sequence[StageReason], settings: RunConfig, force: Collection[str] = ()
) -> None:
    """Say what is about to run, and about what it takes; with --quiet nothing."""
    if is_quiet() or not (due := _due(reasons, force)):
        return
    first, *others = _cost_lines(due, settings)
    say("\n".join([f"runs {_listed([reason.status.title for reason in due])}: {first}", *others]))


def _due(reasons: Sequence[StageReason], force: Collection[str]) -> list[StageReason]:
    """The stages that would run; what a phase shares with the one before is made there."""
    return [
        reason
        for reason in reasons
        if (not reason.is_fresh or _is_forced(reason, force)) and not reason.is_shared
    ]


def _is_forced(reason: StageReason, force: Collection[str]) -> bool:
    return reason.status.stage.split()[0] in force


def _cost_lines(due: Sequence[StageReason], settings: RunConfig) -> list[str]:
    """About how long these stages take and the price of that, and the disk that they fill, as far
    as outputs like theirs say it."""
    times = {reason.status.title: reason.cost.seconds for reason in due}
    if (seconds := _sum(times)) is None:
        return ["no output says how long this takes (tld bench measures it)"]
    line = f"about {duration(seconds)} by the time of the nearest outputs{_without(times)}"
    if (price := settings.evaluate.price_per_hour) is not None:
        line += f"; at {price:g} per hour, {price * seconds / 3600:.2f}"
    # A stage that is forced writes over its own output.
    sizes = {reason.status.title: reason.cost.bytes for reason in due if not reason.is_fresh}
    if (needed := _sum(sizes)) is None:
        return [line]
    free = _free_bytes(settings)
    beside = f"; {size(free)} are free" if needed < free else f", but only {size(free)} are free"
    return [line, f"about {size(needed)} of disk by their size{_without(sizes)}{beside}"]


def _sum(amounts: Mapping[str, float | None]) -> float | None:
    """The sum of those that are known; None if none is."""
    known = [amount for amount in amounts.values() if amount is not None]
    return sum(known) if known else None


def _without(amounts: Mapping[str, float | None]) -> str:
    unknown = [title for title, amount in amounts.items() if amount is None]
    return f", without {_listed(unknown)}" if unknown else ""


def _listed(titles: Sequence[str]) -> str:
    *before, last = titles
    return f"{', '.join(before)} and {last}" if before else last


def _free_bytes(settings: RunConfig) -> int:
    folder = settings.folder.absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def reason_json(reason: StageReason) -> dict[str, Any] | None:
    """The same for programs; None for a fresh stage."""
    from pipeline.maintenance.inventory import scores_of

    if reason.is_fresh:
        return None
    nearest = reason.nearest
    return {
        "waits_for": list(reason.waits_for),
        "nearest": nearest
        and {
            "folder": str(nearest.folder),
            "name": nearest.name,
            "made_at": nearest.made_at,
            "seconds": nearest.seconds,
            "scores": scores_of(nearest),
        },
        "changes": [
            {"setting": change.name, "before": change.before, "now": change.now}
            for change in reason.changes
        ],
        "resumes_at_step": reason.done_steps,
        "begins_with": reason.begins_with and str(reason.begins_with),
        "cost": {"seconds": reason.cost.seconds, "bytes": reason.cost.bytes},
    }


def _described(output: Manifest) -> str:
    """An output: where it is, its run, when and in what time it was made, and its scores."""
    from pipeline.maintenance.inventory import place, scores_of

    scores = "".join(f", {name} {value:.4g}" for name, value in scores_of(output).items())
    return (
        f"{place(output.folder)} of {output.name or 'a run of unknown name'}, "
        f"{output.made_at[:16].replace('T', ' ')} UTC, took {duration(output.seconds)}{scores}"
    )
