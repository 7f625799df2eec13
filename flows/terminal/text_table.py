"""Tables on the terminal, of which no cell is ever cut."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

_GAP = 2  # columns of the terminal between two columns of the table


class TextTable(Table):
    """A table without lines.

    On a terminal, cells wrap between words where the table is wider than it. Where the words do not
    fit either, and in a pipe or a file, each row is one line, so that paths stay whole.
    """

    def __init__(self, *headers: str) -> None:
        super().__init__(
            *headers, box=None, header_style="bold", pad_edge=False, show_header=bool(headers)
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needs = [_width_of(column, console, options) for column in self.columns]
        gaps = _GAP * max(0, len(needs) - 1)
        widths = [need.maximum for need in needs]
        if console.is_terminal and sum(need.minimum for need in needs) + gaps <= options.max_width:
            widths = _narrowed(needs, options.max_width - gaps)
        for column, width in zip(self.columns, widths, strict=True):
            column.width = width
        whole = options.update(width=sum(widths) + gaps, no_wrap=False, overflow="fold")
        yield from super().__rich_console__(console, whole)


def _width_of(column: Column, console: Console, options: ConsoleOptions) -> Measurement:
    """The width of the longest word and of the longest cell of a column, header included."""
    unbounded = options.update(width=1_000_000)
    cells = [Measurement.get(console, unbounded, cell) for cell in (column.header, *column.cells)]
    return Measurement(max(c.minimum for c in cells), max(c.maximum for c in cells))


def _narrowed(needs: Sequence[Measurement], room: int) -> list[int]:
    """Widths of columns that fit, at the expense of the widest ones whose words leave room."""
    widths = [need.maximum for need in needs]
    while sum(widths) > room:
        slack = [i for i, need in enumerate(needs) if widths[i] > need.minimum]
        widths[max(slack, key=lambda i: widths[i])] -= 1
    return widths
