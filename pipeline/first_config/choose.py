"""Settings for a user's data and machine: rules of thumb, each of which the config explains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml

from pipeline.config.paths import escape
from pipeline.config.run import RunConfig
from pipeline.first_config.look import FirstLook

_SIZES = (256, 128, 64)  # pixels, of models that are worth training on one GPU
_ENOUGH = 0.8  # share of the images that need no enlarging
_HELD_OUT = 64  # pairs at least: scores of fewer say little
_EPOCHS = 100
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a first config sets."""

    image_size: int
    enlarge: bool
    """Whether images below that size are used too."""
    shard_size: int
    on_gpu: bool
    batch_size: int
    steps: int
    held_out_fraction: float
    prompts: int

    @property
    def latent_size(self) -> int:
        return self.image_size // 8

    @property
    def decay_steps(self) -> int:
        return self.steps // 5


def choose(look: FirstLook, *, on_gpu: bool) -> Choice:
    """Settings for this data: the largest image size that most images have, and steps for about a
    hundred passes over the data within what such a machine does in a day."""
    fits = [size for size in _SIZES if look.is_urls or look.share_of_side(size) >= _ENOUGH]
    size = fits[0] if fits and on_gpu else _SIZES[-1]
    batch_size = 256 if on_gpu else 64
    least, most = (5000, 50_000) if on_gpu else (1500, 10_000)
    steps = 100 * round(look.rows * _EPOCHS / batch_size / 100)
    fraction = max(0.02, min(0.5, math.ceil(1000 * _HELD_OUT / max(look.rows, 1)) / 1000))
    return Choice(
        image_size=size,
        enlarge=not fits and len(look.short_sides) > 0,
        shard_size=10_000 if look.rows >= 200_000 else 1000 if look.rows >= 5000 else 250,
        on_gpu=on_gpu,
        batch_size=batch_size,
        steps=min(max(least, steps), most),
        held_out_fraction=fraction,
        prompts=min(1024 if on_gpu else 256, max(1, int(look.rows * fraction))),
    )


def config_text(name: str, look: FirstLook, choice: Choice) -> str:
    """The text of the config, which is valid."""
    text = _ENVIRONMENT.get_template("config.yaml.j2").render(
        name=_yaml(name),
        look=look,
        place=_yaml(escape(look.place)),
        url_column=_yaml(look.columns.url),
        caption_column=_yaml(look.columns.caption),
        image_column=_yaml(look.image_column or "image"),
        choice=choice,
    )
    RunConfig.model_validate(yaml.safe_load(text))
    return text


def _yaml(value: str) -> str:
    """A text as YAML, in quotes where YAML would take it for something else."""
    return yaml.safe_dump(value, allow_unicode=True, width=math.inf).removesuffix("...\n").strip()
