"""The stages by which a report was made, as a drawing: what each made, of what, in what time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from data_catalog.storage.manifest import Manifest

_WIDTH, _HEIGHT = 150, 62  # of a box, in pixels
_GAP, _LANE_GAP = 30, 18  # between boxes along an edge, and between lanes: two fit on a phone
_MARGIN = 20  # around all boxes, where edges bend

_OUTPUTS = {
    "download": "{} images",
    "encode": "{} encodings",
    "train": "model of {} pairs",
    "distill": "model of {} pairs",
    "evaluate": "report of {} samples",
}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The stage whose report is being made."""

    encodings: Manifest
    model: Manifest
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StageBox:
    """A stage in the drawing."""

    stage: str
    rows: int
    seconds: float
    state: str
    """Whether its output was there before the command that made the report; "" if unknown."""
    parents: tuple[int, ...]
    """Positions of the boxes from whose outputs it was made."""
    lane: int
    """Number of its phase."""
    depth: int

    @property
    def output(self) -> str:
        """What it made: `6,000 images` or `model of 1.2 M pairs`."""
        rows = f"{self.rows / 1e6:.1f} M" if self.rows >= 1_000_000 else f"{self.rows:,}"
        return _OUTPUTS[self.stage].format(rows)


@dataclass(frozen=True, slots=True)
class StageDrawing:
    """Places of the boxes, by their upper left corner, and paths of the edges, in pixels."""

    width: int
    height: int
    boxes: tuple[tuple[int, int, StageBox], ...]
    edges: tuple[str, ...]
    box_width: int = _WIDTH
    box_height: int = _HEIGHT


@dataclass(frozen=True, slots=True)
class StageGraph:
    """The drawing for wide pages and for narrow ones, and the same as text."""

    wide: StageDrawing
    upright: StageDrawing
    sentences: tuple[str, ...]
    states: bool
    """Whether it says what was fresh."""


def stage_graph(
    lineage: Sequence[Manifest], last: Evaluation, began: datetime | None
) -> StageGraph:
    """The graph of the outputs and of the evaluation."""
    boxes = stage_boxes(lineage, last, began)
    return StageGraph(
        drawing(boxes, upright=False),
        drawing(boxes, upright=True),
        tuple(_sentence(boxes, box) for box in boxes),
        any(box.state for box in boxes),
    )


def _sentence(boxes: Sequence[StageBox], box: StageBox) -> str:
    of_what = " and ".join(boxes[parent].output for parent in box.parents)
    state = f" ({box.state})" if box.state else ""
    return f"{box.stage}: {box.output}{f', of {of_what}' if of_what else ''}{state}."


def stage_boxes(
    lineage: Sequence[Manifest], last: Evaluation, began: datetime | None
) -> list[StageBox]:
    """A box of each output, in the order of the lineage, and one of the evaluation. `began` is when
    the command began that makes the report."""
    keys = [(output.stage, output.digest) for output in lineage]
    inputs = [output.inputs for output in lineage]
    inputs.append([("encode", last.encodings.digest), (last.model.stage, last.model.digest)])
    parents = [_positions(of_one, keys[:position]) for position, of_one in enumerate(inputs)]
    stages = [*(stage for stage, _ in keys), "evaluate"]
    lanes, depths = _lanes(stages, parents), _depths(stages, parents)
    amounts = [(one.rows, one.seconds, _state(one, began)) for one in lineage]
    amounts.append((last.rows, last.seconds, "made now" if began else ""))
    return [
        StageBox(stage, *measured, of_one, lane, depth)
        for stage, measured, of_one, lane, depth in zip(
            stages, amounts, parents, lanes, depths, strict=True
        )
    ]


def _positions(inputs: Sequence[tuple[str, str]], before: list[tuple[str, str]]) -> tuple[int, ...]:
    """Where inputs stand among the outputs before. Two outputs may have equal content."""
    return tuple(dict.fromkeys(before.index(key) for key in inputs if key in before))


def _state(output: Manifest, began: datetime | None) -> str:
    if began is None:
        return ""
    # A manifest has whole seconds.
    is_older = datetime.fromisoformat(output.made_at) < began.replace(microsecond=0)
    return "was fresh" if is_older else "made now"


def _lanes(stages: Sequence[str], parents: Sequence[Sequence[int]]) -> list[int]:
    """The number of the phase of each stage: a training that begins with a model begins a phase.
    What several phases use is of the first of them."""
    lanes = [0] * len(stages)
    for position, stage in enumerate(stages):
        of_models = [
            parent for parent in parents[position] if stages[parent] in ("train", "distill")
        ]
        if of_models:
            lanes[position] = max(lanes[parent] for parent in of_models) + (stage == "train")
    for position in reversed(range(len(stages))):
        if stages[position] in ("download", "encode"):
            children = _children(position, parents)
            lanes[position] = min((lanes[child] for child in children), default=0)
    return lanes


def _depths(stages: Sequence[str], parents: Sequence[Sequence[int]]) -> list[int]:
    """The column of each stage: behind its inputs, and what is not trained close to its use."""
    depths: list[int] = []
    for of_one in parents:
        depths.append(max((depths[parent] + 1 for parent in of_one), default=0))
    for position in reversed(range(len(stages))):
        children = _children(position, parents)
        if stages[position] in ("download", "encode") and children:
            depths[position] = min(depths[child] for child in children) - 1
    return depths


def _children(position: int, parents: Sequence[Sequence[int]]) -> list[int]:
    return [child for child, of_one in enumerate(parents) if position in of_one]


def drawing(boxes: Sequence[StageBox], *, upright: bool) -> StageDrawing:
    """The boxes from left to right with a row for each phase, or upright with a column for each."""
    placed = [_place(box, upright=upright) for box in boxes]
    return StageDrawing(
        max(x for x, _ in placed) + _WIDTH + _MARGIN,
        max(y for _, y in placed) + _HEIGHT + _MARGIN,
        tuple((x, y, box) for (x, y), box in zip(placed, boxes, strict=True)),
        tuple(_edges(boxes, placed, upright=upright)),
    )


def _place(box: StageBox, *, upright: bool) -> tuple[int, int]:
    if upright:
        return _at(box.lane, _WIDTH, _LANE_GAP), _at(box.depth, _HEIGHT, _GAP)
    return _at(box.depth, _WIDTH, _GAP), _at(box.lane, _HEIGHT, _GAP)


def _at(number: int, length: int, gap: int) -> int:
    return _MARGIN + number * (length + gap)


def _edges(
    boxes: Sequence[StageBox], placed: Sequence[tuple[int, int]], *, upright: bool
) -> Iterator[str]:
    for (x, y), box in zip(placed, boxes, strict=True):
        for number in box.parents:
            parent, (from_x, from_y) = boxes[number], placed[number]
            bends = parent.lane == box.lane and box.depth > parent.depth + 1
            if upright:
                yield _mirrored(
                    _edge((from_y, from_x), (y, x), box.lane, bends=bends, upright=True)
                )
            else:
                yield _path(_edge((from_x, from_y), (x, y), box.lane, bends=bends, upright=False))


def _edge(
    start: tuple[int, int], end: tuple[int, int], lane: int, *, bends: bool, upright: bool
) -> list[tuple[int, int]]:
    """Four points of a curve along the first axis. One that skips a box of its lane bends around
    it: on the outer side in the first lane, and on the other in the others."""
    along, across = (_HEIGHT, _WIDTH) if upright else (_WIDTH, _HEIGHT)
    if bends:
        side = 0 if lane == 0 else across
        way = -_MARGIN if lane == 0 else _MARGIN
        first = (start[0] + along * 3 // 4, start[1] + side)
        last = (end[0] + along // 4, end[1] + side)
        return [first, (first[0] + _GAP, first[1] + way), (last[0] - _GAP, last[1] + way), last]
    first = (start[0] + along, start[1] + across // 2)
    last = (end[0], end[1] + across // 2)
    return [first, (first[0] + _GAP, first[1]), (last[0] - _GAP, last[1]), last]


def _path(points: Sequence[tuple[int, int]]) -> str:
    (x, y), *others = points
    return f"M{x},{y} C" + " ".join(f"{x},{y}" for x, y in others)


def _mirrored(points: Sequence[tuple[int, int]]) -> str:
    return _path([(y, x) for x, y in points])
