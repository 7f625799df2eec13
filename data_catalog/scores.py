"""The scores of a model: one table of their names, meanings, directions and uses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from data_catalog.feature_names import CLIP, FEATURE_NAMES, INCEPTION
from data_catalog.shapes.captions import ATTRIBUTE_NAMES

FEWEST_CAPTIONS = 20  # distinct ones behind a score with an interval
FEWEST_IMAGES = 50  # of each of two sets between which a distance is given
MOST_FOR_FRECHET_INTERVAL = 10_000  # images; a bootstrap of more takes too long
NO_INTERVAL = f"< {FEWEST_CAPTIONS} captions"  # in a table, in place of the interval


@dataclass(frozen=True, slots=True)
class Score:
    """A score, and what is done with it."""

    name: str
    meaning: str  # for reports and cards
    higher_is_better: bool | None  # None if a larger value is neither better nor worse
    larger: str = "larger"  # what tld compare says of the larger value if neither is better
    counted: str = "prompts"  # what its interval is computed from
    lowest: float = -math.inf  # no value is below
    is_share: bool = False  # of images, from 0 to 1
    is_distance: bool = False  # between two sets of images
    of_model: bool = True  # or else of the held-out images, for comparison
    features: str = ""  # the image features that it compares, if it does
    needs_clip: bool = False  # to compute it
    is_printed: bool = False  # by tld run
    # The first of these that both models have decides which one is champion.
    decides_champion: bool = False


def score_on(measure: str, features: str) -> str:
    """The name of a measure of images on some features: `cmmd` on CLIP's, `cmmd/dinov2` on others;
    `fid` and `kid` on Inception's."""
    if features == INCEPTION and measure in _ON_INCEPTION:
        return _ON_INCEPTION[measure]
    return measure if features == CLIP else f"{measure}/{features}"


_ON_INCEPTION = {"frechet_distance": "fid", "kernel_distance": "kid"}


def _scores_on(features: str) -> tuple[Score, ...]:
    """The measures that compare images by features other than CLIP's."""
    distance = Score("", "", higher_is_better=False, is_distance=True, features=features)
    frechet, kernel = (score_on(name, features) for name in ("frechet_distance", "kernel_distance"))
    is_inception = features == INCEPTION
    return (
        replace(
            distance,
            name=score_on("cmmd", features),
            meaning=f"CMMD's measure to the held-out images, on {features} features; 0 is best",
            lowest=0,
        ),
        replace(
            distance,
            name=kernel,
            meaning="KID to the held-out images: Inception features, polynomial kernel; near 0 is "
            "best"
            if is_inception
            else f"KID's measure to the held-out images, on {features} features; near 0 is best; "
            "not an Inception KID",
        ),
        replace(
            distance,
            name=frechet,
            meaning="FID to the held-out images: Fréchet distance of Inception features; 0 is best;"
            " compare it only at the same number of images"
            if is_inception
            else f"Fréchet distance of {features} features to the held-out images; 0 is best; "
            "not an Inception FID",
            lowest=0,
            is_printed=True,
        ),
        Score(
            score_on("diversity", features),
            f"100 × mean distance of {features} features between samples of the same caption; "
            "0 if all are alike",
            higher_is_better=None,
            larger="more varied",
            lowest=0,
            features=features,
        ),
    )


_TABLE = (
    Score(
        "prompt_accuracy",
        "share of samples whose pixels show all that the caption says; higher is better",
        higher_is_better=True,
        is_share=True,
        is_printed=True,
        decides_champion=True,
    ),
    *(
        Score(
            f"accuracy/{name}",
            f"share of samples whose pixels show the {name} that is asked for; higher is better",
            higher_is_better=True,
            is_share=True,
        )
        for name in ATTRIBUTE_NAMES
    ),
    Score(
        "clip_score",
        "100 × cosine of the CLIP embeddings of sample and caption; higher is better",
        higher_is_better=True,
        is_printed=True,
        decides_champion=True,
        needs_clip=True,
    ),
    Score(
        "clip_score_reference",
        "the CLIP score of the held-out images: about the best that a model can reach",
        higher_is_better=None,
        of_model=False,
        is_printed=True,
        needs_clip=True,
    ),
    Score(
        "cmmd",
        "CMMD to the held-out images; 0 is best",
        higher_is_better=False,
        lowest=0,
        is_distance=True,
        is_printed=True,
        features=CLIP,
        needs_clip=True,
    ),
    Score(
        "kernel_distance",
        "KID's measure to the held-out images, on CLIP features; near 0 is best; "
        "not an Inception KID",
        higher_is_better=False,
        is_distance=True,  # unbiased, so it may be below 0
        features=CLIP,
        needs_clip=True,
    ),
    Score(
        "frechet_distance",
        "Fréchet distance of CLIP features to the held-out images; 0 is best; not an Inception FID",
        higher_is_better=False,
        lowest=0,
        is_distance=True,
        is_printed=True,
        features=CLIP,
        needs_clip=True,
    ),
    Score(
        "diversity",
        "100 × mean CLIP distance between samples of the same caption; 0 if all are alike",
        higher_is_better=None,  # wrong images are diverse too
        larger="more varied",
        lowest=0,
        features=CLIP,
        needs_clip=True,
    ),
    *(score for name in FEATURE_NAMES if name != CLIP for score in _scores_on(name)),
    Score(
        "retrieval_at_1",
        "share of samples to which, of the real images of their style, one of their concept is the "
        "nearest; higher is better",
        higher_is_better=True,
        is_share=True,
        is_printed=True,
    ),
    Score(
        "retrieval_at_5",
        "the same within the five nearest; higher is better",
        higher_is_better=True,
        is_share=True,
    ),
    Score(
        "open_attribute_diversity",
        "how varied samples are in what their caption leaves open; 1 as the data, 0 if all alike",
        higher_is_better=None,  # above 1 is more varied than the data
        larger="more varied",
        lowest=0,
        is_printed=True,
    ),
    Score(
        "held_out_loss",
        "mean squared error of the clean latent on held-out pairs, over all noise levels",
        higher_is_better=False,
        lowest=0,
        counted="pairs",
        is_printed=True,
    ),
    Score(
        "latency_s",
        "median seconds of one image alone",
        higher_is_better=False,
    ),
)

SCORES = {score.name: score for score in _TABLE}
DISTANCES = tuple(score.name for score in _TABLE if score.is_distance)


def score_of(name: str) -> Score:
    """The score that a name in a report belongs to: `reference/accuracy/size` has the properties of
    `accuracy/size`, and `held_out_loss/0.0-0.2` those of `held_out_loss`."""
    name = name.removeprefix("reference/")
    return SCORES[name] if name in SCORES else SCORES[name.partition("/")[0]]


def missing_distances(images: int, features: Iterable[str] = (CLIP,)) -> str:
    """Why there are no distances of sets of so many images on these features, or ""."""
    chosen = set(features)
    names = [name for name in DISTANCES if SCORES[name].features in chosen]
    if images >= FEWEST_IMAGES or not names:
        return ""
    return f"no {', '.join(names)}: they need {FEWEST_IMAGES} images, and here are {images}"


def no_interval(name: str, images: int) -> str:
    """What stands in a table in place of the interval that a score of so many images lacks."""
    if is_frechet(name) and images > MOST_FOR_FRECHET_INTERVAL:
        return f"> {MOST_FOR_FRECHET_INTERVAL:,} images"
    return NO_INTERVAL


def is_frechet(name: str) -> bool:
    """Whether this is a Fréchet distance, on whatever features."""
    return name == "fid" or name.partition("/")[0] == "frechet_distance"


def missing_without_clip(features: Sequence[str]) -> list[str]:
    """The scores that these features give with CLIP alone; diversity is on the first of them."""
    needed = [score for score in _TABLE if score.needs_clip and score.features in ("", *features)]
    return [score.name for score in needed if score.name != "diversity" or features[0] == CLIP]


def is_part(name: str) -> bool:
    """Whether this is a part of another score, such as that of one attribute or noise level."""
    return "/" in name and not (name in SCORES and SCORES[name].features)


def whole_scores(names: Iterable[str]) -> list[Score]:
    """The scores with these names, in the order of the table and without parts of others."""
    present = set(names)
    return [score for score in _TABLE if score.name in present and not is_part(score.name)]
