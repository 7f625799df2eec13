"""The verdict of a report: what its scores say, in a few sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from data_catalog.scores import is_frechet, is_part
from data_catalog.shapes.captions import ATTRIBUTE_NAMES
from pipeline.scoring.bootstrap import Estimate

_OFTEN_WRONG = 0.98  # an attribute that is right less often is named


def verdict(estimates: Mapping[str, Estimate]) -> list[str]:
    """Sentences on the most telling scores that there are, the most telling first."""
    return [
        *_captions(estimates),
        *_retrieval(estimates),
        *_alignment(estimates),
        *_distance(estimates),
    ]


def _captions(estimates: Mapping[str, Estimate]) -> Iterator[str]:
    accuracy = estimates.get("prompt_accuracy")
    if accuracy is None:
        return
    yield f"{_share(accuracy)} of the samples show all that their caption says."
    of_each = {
        name: estimates[f"accuracy/{name}"]
        for name in ATTRIBUTE_NAMES
        if f"accuracy/{name}" in estimates
    }
    worst = min(of_each, key=lambda name: of_each[name].value, default=None)
    if worst and of_each[worst].value < _OFTEN_WRONG:
        yield f"Most often wrong is the {worst}: right in {_share(of_each[worst])}."


def _retrieval(estimates: Mapping[str, Estimate]) -> Iterator[str]:
    share = estimates.get("retrieval_at_5")
    if share is None:
        return
    ceiling = estimates.get("reference/retrieval_at_5")
    of_real = f"; of real images, {_share(ceiling)} do" if ceiling else ""
    yield (
        f"{_share(share)} of the samples have an image of their concept among the five nearest "
        f"real ones{of_real}."
    )


def _alignment(estimates: Mapping[str, Estimate]) -> Iterator[str]:
    score, reference = estimates.get("clip_score"), estimates.get("clip_score_reference")
    if score and reference:
        yield (
            f"The CLIP score is {score.value:.3g}{_within(score)}, that of the held-out images "
            f"{reference.value:.3g}."
        )


def _distance(estimates: Mapping[str, Estimate]) -> Iterator[str]:
    name = next((name for name in estimates if is_frechet(name) and not is_part(name)), None)
    if name is None:
        return
    of_real = estimates.get(f"reference/{name}")
    beside = f"; as many training images have {of_real.value:.3g}" if of_real else ""
    yield (
        f"The Fréchet distance to the held-out images ({name}) is "
        f"{estimates[name].value:.3g}{_within(estimates[name])}{beside}."
    )


def _share(estimate: Estimate) -> str:
    within = (
        ""
        if estimate.interval is None
        else " ({:.1f} to {:.1f} %)".format(*(100 * end for end in estimate.interval))
    )
    return f"{100 * estimate.value:.1f} %{within}"


def _within(estimate: Estimate) -> str:
    return f" ({estimate})" if estimate.interval else ""
