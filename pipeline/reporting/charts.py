"""Line charts for HTML pages, as SVG: sharp at every width, with text as large as the page's."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
_SMOOTHED_FROM = 100  # points: longer curves are drawn faint, with their running mean on top
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tld",
    "font.family": "sans-serif",
    "font.size": 11,
}
_WITHOUT_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def curves(
    lines: Mapping[str, Points], ylabel: str, scale: Literal["linear", "log"] = "log"
) -> str:
    """Named curves over training steps as a data URI. Equal values give equal bytes."""
    with drawn(figsize=(5.4, 3.3)) as figure:
        axes = figure.subplots()
        for number, (name, points) in enumerate(lines.items()):
            steps, values = zip(*points, strict=True)
            many = len(points) >= _SMOOTHED_FROM
            if many:
                axes.plot(steps, values, color=f"C{number}", alpha=0.4, linewidth=0.8)
            shown = _running_mean(values, len(points) // 25) if many else values
            axes.plot(
                steps,
                shown,
                color=f"C{number}",
                label=name,
                marker="." if len(points) < 30 else None,
            )
        axes.set(xlabel="step", ylabel=ylabel, yscale=scale)
        if len(lines) > 1:
            figure.legend(loc="outside upper center", ncols=3, fontsize=9)
        axes.grid(alpha=0.3, which="both")
    return svg_uri(figure)


@contextlib.contextmanager
def drawn(figsize: tuple[float, float]) -> Iterator[Figure]:
    """A context with an empty figure to draw in; figsize is in inches."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=figsize, layout="constrained")


def svg_uri(figure: Figure) -> str:
    """A figure as a data URI."""
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata=_WITHOUT_METADATA)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and those before it, over at most `width` values."""
    spans = (values[max(0, end - width) : end] for end in range(1, len(values) + 1))
    return [sum(span) / len(span) for span in spans]
