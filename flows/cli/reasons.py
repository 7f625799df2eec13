"""Text and JSON of the reasons why stages are not fresh, for `tld status --why` and `tld run
--dry-run`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from flows.terminal.duration import duration

if TYPE_CHECKING:
    from data_catalog.storage.manifest import Manifest
    from pipeline.maintenance.reasons import StageReason


def reason_lines(reason: StageReason, location: str) -> list[str]:
    """Why a stage is not fresh: a sentence, and a line for each difference."""
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
    reasons: Sequence[StageReason], location: str, force: Collection[str] = ()
) -> list[str]:
    """What a run would do: each stage with its reason, and about how long all of it takes."""
    lines = [f"in {location}"]
    due: list[StageReason] = []
    for reason in reasons:
        is_forced = reason.status.stage.split()[0] in force
        if reason.is_fresh:
            why = "is fresh, but --force runs it again" if is_forced else "is fresh"
            lines.append(f"{reason.status.title}: {why}")
        else:
            lines += reason_lines(reason, location)
        if is_forced or not reason.is_fresh:
            due.append(reason)
    if not due:
        return [*lines, "nothing would run"]
    return [*lines, f"{_time(due)}; nothing was started"]


def _time(due: Sequence[StageReason]) -> str:
    """About how long these stages take, as far as outputs like theirs say it."""
    unknown = [reason.status.title for reason in due if reason.seconds is None]
    if len(unknown) == len(due):
        return "no output says how long this takes (tld bench measures it)"
    seconds = sum(reason.seconds or 0 for reason in due)
    without = f", without {' and '.join(unknown)}" if unknown else ""
    return f"about {duration(seconds)} by the time of these outputs{without}"


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
    }


def _described(output: Manifest) -> str:
    """An output: where it is, its run, when and in what time it was made, and its scores."""
    from pipeline.maintenance.inventory import place, scores_of

    scores = "".join(f", {name} {value:.4g}" for name, value in scores_of(output).items())
    return (
        f"{place(output.folder)} of {output.name or 'a run of unknown name'}, "
        f"{output.made_at[:16].replace('T', ' ')} UTC, took {duration(output.seconds)}{scores}"
    )
