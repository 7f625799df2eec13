"""What the tests of the browser share."""

from __future__ import annotations

import pytest

from pipeline.browse.browser import DataBrowser
from pipeline.config.run import RunConfig
from tests.support.browsed import finished_browsed, open_browser


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return finished_browsed(tmp_path_factory.mktemp("look"))


@pytest.fixture(scope="session")
def browser(config: RunConfig) -> DataBrowser:
    return open_browser(config)
