"""The drawing of the stages that a report was made by."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from data_catalog.storage.manifest import Manifest
from pipeline.evaluate.stage_graph import (
    Evaluation,
    StageBox,
    drawing,
    stage_boxes,
    stage_graph,
)

NOW = datetime(2026, 5, 1, 12, 0, 0, 999, tzinfo=UTC)


def output(name: str, rows: int = 60, minute: int = 0, **parents: str) -> Manifest:
    """An output whose digest is its name: a stage, and where there are several a number."""
    return Manifest(
        stage=name.rstrip("0123456789"),
        version=1,
        fingerprint=name,
        digest=name,
        rows=rows,
        shards=(),
        figures={},
        settings={},
        parents={parent.replace("_", " "): digest for parent, digest in parents.items()},
        made_by="",
        made_at=f"2026-05-01T12:{minute:02d}:00+00:00" if minute else "2026-05-01T11:59:00+00:00",
        seconds=3.0,
        folder=Path(name),
    )


IMAGES, ENCODINGS = output("download1"), output("encode1", download="download1")
MODEL = output("train1", rows=50, minute=2, encode="encode1")
FIRST = [IMAGES, ENCODINGS, MODEL]


def boxes_of(
    lineage: list[Manifest], encodings: Manifest, began: datetime | None = NOW
) -> list[StageBox]:
    return stage_boxes(lineage, Evaluation(encodings, lineage[-1], 12, 1.5), began)


def places(boxes: list[StageBox]) -> list[tuple[str, int, int]]:
    return [(box.stage, box.lane, box.depth) for box in boxes]


def test_a_run_is_a_row_of_stages_and_the_report_needs_encodings_and_model() -> None:
    boxes = boxes_of(FIRST, ENCODINGS)
    assert places(boxes) == [
        ("download", 0, 0),
        ("encode", 0, 1),
        ("train", 0, 2),
        ("evaluate", 0, 3),
    ]
    assert [box.parents for box in boxes] == [(), (0,), (1,), (1, 2)]
    assert [box.output for box in boxes] == [
        *("60 images", "60 encodings", "model of 50 pairs", "report of 12 samples"),
    ]


def test_what_was_there_before_the_command_was_fresh() -> None:
    states = ["was fresh", "was fresh", "made now", "made now"]
    assert [box.state for box in boxes_of(FIRST, ENCODINGS)] == states
    assert {box.state for box in boxes_of(FIRST, ENCODINGS, None)} == {""}, "on a worker"
    same_second = output("download", minute=1)
    began = datetime(2026, 5, 1, 12, 1, 0, 5000, tzinfo=UTC)
    assert boxes_of([same_second], same_second, began)[0].state == "made now"


def test_phases_have_a_lane_each_and_what_they_share_is_of_the_first() -> None:
    images, encodings = output("download2"), output("encode2", download="download2")
    model = output("train2", encode="encode2", encode_first="encode1", train="train1")
    boxes = boxes_of([*FIRST, images, encodings, model], encodings)
    assert places(boxes)[3:] == [
        ("download", 1, 1),
        ("encode", 1, 2),
        ("train", 1, 3),
        ("evaluate", 1, 4),
    ]
    assert boxes[5].parents == (4, 1, 2), "its encodings, those of the mix, and the model before"
    shared = boxes_of([*FIRST, output("train2", encode="encode1", train="train1")], ENCODINGS)
    assert places(shared)[1:] == [
        ("encode", 0, 1),
        ("train", 0, 2),
        ("train", 1, 3),
        ("evaluate", 1, 4),
    ]


def test_a_distilled_model_stays_in_the_lane_of_its_teacher() -> None:
    distilled = output("distill", encode="encode1", train="train1")
    boxes = boxes_of([*FIRST, distilled], ENCODINGS)
    assert places(boxes)[3:] == [("distill", 0, 3), ("evaluate", 0, 4)]
    assert boxes[4].parents == (1, 3)


def test_a_parent_that_is_gone_is_left_out() -> None:
    boxes = boxes_of([ENCODINGS, MODEL], ENCODINGS)
    assert places(boxes) == [("encode", 0, 0), ("train", 0, 1), ("evaluate", 0, 2)]
    assert boxes[0].parents == ()


def test_a_model_equal_to_the_one_that_it_began_with_is_not_its_own_parent() -> None:
    again = MODEL.model_copy(update={"parents": {"encode": "encode1", "train": "train1"}})
    boxes = boxes_of([IMAGES, ENCODINGS, again], ENCODINGS)
    assert boxes[2].parents == (1,)


def test_every_edge_and_box_is_within_the_drawing_and_two_lanes_fit_on_a_phone() -> None:
    images, encodings = output("download2"), output("encode2", download="download2")
    model = output("train2", encode="encode2", train="train1")
    boxes = boxes_of([*FIRST, images, encodings, model], encodings)
    for upright in (False, True):
        drawn = drawing(boxes, upright=upright)
        assert len(drawn.boxes) == len(boxes)
        assert len({(x, y) for x, y, _ in drawn.boxes}) == len(boxes)
        assert len(drawn.edges) == sum(len(box.parents) for box in boxes)
        for path in drawn.edges:
            points = [(int(x), int(y)) for x, y in re.findall(r"(\d+),(\d+)", path)]
            assert len(points) == 4, path
            assert all(0 <= x <= drawn.width and 0 <= y <= drawn.height for x, y in points)
    assert drawn.width <= 390 - 2 * 16


def test_the_text_says_what_the_drawing_shows() -> None:
    graph = stage_graph(FIRST, Evaluation(ENCODINGS, MODEL, 12, 1.5), NOW)
    assert graph.sentences == (
        "download: 60 images (was fresh).",
        "encode: 60 encodings, of 60 images (was fresh).",
        "train: model of 50 pairs, of 60 encodings (made now).",
        "evaluate: report of 12 samples, of 60 encodings and model of 50 pairs (made now).",
    )
    assert graph.states
    assert not stage_graph(FIRST, Evaluation(ENCODINGS, MODEL, 12, 1.5), None).states
