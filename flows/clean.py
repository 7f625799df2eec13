"""`tld clean`: what no run needs any more, and its end."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from flows.terminal import Config, UserMistake, console, joined, load


def clean(
    config: Config,
    *overrides: Annotated[str, Parameter(help="Settings of the run, as section.key=value.")],
    keep: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="Another run to keep, as typed after `tld run`, in quotes; several are allowed."),
    ] = (),
    yes: Annotated[bool, Parameter(negative="", help="Delete it. Without this nothing is deleted.")] = False,
) -> None:
    """Free what this run does not need: outputs of other settings, and checkpoints of finished trainings.

    Shows what it would delete, and how much that frees. Kept are the outputs of this run, finished or not, and of those
    that --keep names; and all of a stage while one before it is not finished. What is deleted is made again where a
    run asks for it.
    """
    from pipeline.inventory import find_waste, remove

    configs = [load(config, overrides)]
    for text in keep:
        words = shlex.split(text) or [""]
        configs.append(load(Path(words[0]), words[1:]))
    if elsewhere := {str(other.folder) for other in configs if other.folder.resolve() != configs[0].folder.resolve()}:
        raise UserMistake(f"--keep: {', '.join(elsewhere)} is another workspace than {configs[0].folder}")
    waste = find_waste(configs)
    if not waste:
        console.print(f"nothing to free in {configs[0].folder}", markup=False)
        return
    table = Table("MB", "what", "why", box=None, header_style="bold", pad_edge=False)
    freed = 0
    for item in waste:
        gone = remove(item, configs[0]) if yes else True
        freed += item.bytes if gone else 0
        why = item.why if gone else "kept: a process works in it"
        table.add_row(f"{item.bytes / 1e6:,.1f}", str(item.path), why)
    console.print(table)
    total = f"{freed / 1e6:,.1f} MB"
    kept = "".join(f"--keep {shlex.quote(text)} " for text in keep)
    again = f"tld clean {config} {joined(overrides)}{kept}--yes"
    console.print(f"\n{total} freed" if yes else f"\n{total} would be free: {again}", markup=False)
