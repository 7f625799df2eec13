"""The settings that a first config has for data and machine."""

from __future__ import annotations

import pytest
import yaml

from data_catalog.url_table.rows import TableColumns
from pipeline.config.run import RunConfig
from pipeline.first_config.choose import choose, config_text
from pipeline.first_config.look import FirstLook


def look(
    rows: int = 20_000, sides: tuple[int, ...] = (300, 400), what: str = "webdataset tars"
) -> FirstLook:
    return FirstLook(
        place="tars/$5/*.tar",
        what=what,
        rows=rows,
        columns=TableColumns(url="link", caption="yes"),
        image_column="jpg",
        looked_at=2,
        captions=("a", "b"),
        short_sides=sides,
        unreadable=0,
    )


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("what", ["webdataset tars", "a table of URLs"])
@pytest.mark.parametrize("rows", [1, 1000, 10_000_000])
def test_the_config_is_valid_and_names_what_was_found(rows: int, what: str, on_gpu: bool) -> None:
    seen = look(rows, what=what)
    text = config_text("123", seen, choose(seen, on_gpu=on_gpu))

    config = RunConfig.model_validate(yaml.safe_load(text))
    assert config.name == "123"
    assert config.download.place == "tars/$5/*.tar"
    assert (config.download.images is None) == seen.is_urls
    assert config.download.caption_column == "yes"
    assert config.model.latent_size == config.download.image_size // 8
    assert config.train.optimizer == "muon"
    assert (config.train.noise_alpha, config.train.max_loss_weight) == (2, 4)
    assert text.endswith("\n")
    assert max(map(len, text.splitlines())) <= 100


def test_the_image_size_is_one_that_most_images_have() -> None:
    assert choose(look(sides=(300,) * 9 + (64,)), on_gpu=True).image_size == 256
    assert choose(look(sides=(200,) * 9 + (300,)), on_gpu=True).image_size == 128
    small = choose(look(sides=(32,) * 10), on_gpu=True)
    assert (small.image_size, small.enlarge) == (64, True)
    assert choose(look(), on_gpu=False).image_size == 64


def test_few_rows_get_few_steps_and_enough_held_out_pairs() -> None:
    few, many = choose(look(1000), on_gpu=True), choose(look(1_000_000), on_gpu=True)
    assert (few.steps, many.steps) == (5000, 50_000)
    assert few.held_out_fraction * 1000 >= 64
    assert many.held_out_fraction == 0.02
    assert few.prompts <= 1000 * few.held_out_fraction
