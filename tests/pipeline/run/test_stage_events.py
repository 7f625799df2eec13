"""What a callback hears of a run, and what comes of its own errors."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipeline.run.stage_events import EventSender, EventTracker, StageEvent


def test_an_event_is_a_readable_line() -> None:
    events: list[StageEvent] = []
    track = EventTracker("train", events.append)
    track.progress(0, 0, "loading the encodings")
    track.progress(1200, 4000, "loss 1.25")
    track.metrics({"loss": 1.25, "lr": 5e-4}, 1200)
    track.image(Path("samples/1.png"), "samples", 1200)
    track.artifact(Path("report.html"))
    track.warning("few pairs are held out")
    track.note("resumed at step 4")
    events.append(StageEvent("train", "fresh", path=Path("data/03_model/1")))
    events.append(StageEvent("train", "finished", "9 rows in 2 s", Path("data/03_model/1")))

    assert [str(event).removeprefix("train     ") for event in events] == [
        "loading the encodings",
        "1,200/4,000 (30%)  loss 1.25",
        "step 1200  loss 1.25  lr 0.0005",
        "samples of step 1200: samples/1.png",
        "made report.html",
        "warning: few pairs are held out",
        "resumed at step 4",
        "fresh: data/03_model/1",
        "finished 9 rows in 2 s: data/03_model/1",
    ]


def test_progress_comes_about_once_a_second() -> None:
    events: list[StageEvent] = []
    track = EventTracker("train", EventSender(events.append))
    for done in range(1, 101):
        track.progress(done, 100)
        track.metrics({"loss": 1 / done}, done)

    progress = [event.done for event in events if event.kind == "progress"]
    assert progress[0] == 1, "the first at once"
    assert progress[-1] == 100
    assert len(progress) < 10
    assert len(events) - len(progress) == 100, "metrics are not left out"


def in_a_thread(send: EventSender, event: StageEvent) -> None:
    thread = threading.Thread(target=send, args=[event])
    thread.start()
    thread.join()


def test_what_a_callback_raises_in_a_thread_is_raised_in_the_thread_of_the_caller() -> None:
    heard: list[str] = []

    def on_event(event: StageEvent) -> None:
        heard.append(event.text)
        if event.text == "stop":
            raise RuntimeError("enough")

    send = EventSender(on_event)
    with pytest.raises(RuntimeError, match="enough"):
        send(StageEvent("train", "note", "stop"))
    in_a_thread(send, StageEvent("train", "note", "stop"))
    in_a_thread(send, StageEvent("train", "note", "more"))
    with pytest.raises(RuntimeError, match="enough"):
        send(StageEvent("train", "note", "next"))
    send(StageEvent("train", "note", "last"))

    assert heard == ["stop", "stop", "last"]


def test_a_callback_is_called_by_one_thread_at_a_time() -> None:
    inside, most = 0, 0
    pause = threading.Event()

    def on_event(_: StageEvent) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        pause.wait(0.01)
        inside -= 1

    send = EventSender(on_event)
    threads = [
        threading.Thread(target=send, args=[StageEvent("train", "note", str(number))])
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 1
