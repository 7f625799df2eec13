"""The reference pages that people write name all that the code has: endpoints, fields, variables,
files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from data_catalog.encodings import MORE_CAPTIONS, SCHEMA, EncodedArrays
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import Shard
from flows.serve.app import image_service
from flows.serve.card import Card
from flows.serve.guard import Access
from tests.support.command import REPOSITORY
from tests.support.served import served_model
from tld_model.config import SamplingSettings

DOCS = REPOSITORY / "docs"
ROOMS = ("data_catalog", "tld_model", "pipeline", "flows")
_VARIABLE = re.compile(
    r"environ(?:\.get|\.setdefault|\[)?\(?\"([A-Z][A-Z_]+)\"|\"([A-Z]+_[A-Z_]+)\": "
)
OF_OTHERS = {
    "TORCHELASTIC_USE_AGENT_STORE",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
    "MLFLOW_BACKEND_STORE_URI",
} | {
    *(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
        "PYTHONUNBUFFERED",
        "PREFECT_UI_ENABLED",
        "PREFECT_UI_API_URL",
        "PREFECT_API_BLOCKS_REGISTER_ON_START",
    ),
    *("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "PREFECT_LOGGING_INTERNAL_LEVEL"),
}  # set for processes that tld starts, of no use to a reader


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def api() -> dict[str, Any]:
    card = Card(
        name="x",
        model={},
        data={},
        encoders={},
        sampling={},
        scores={},
        edge=64,
        multiple=16,
        example="",
    )
    model = served_model(lambda _requests, _before_step: [], card, SamplingSettings())
    service = image_service(model, Access(), 64)
    service.batches.close()
    return service.app.openapi()


def test_the_service_s_page_names_every_path_field_and_status(api: dict[str, Any]) -> None:
    told = page("reference/service-api.md")

    fields = {
        name
        for schema in api["components"]["schemas"].values()
        for name in schema.get("properties", ())
    }
    of_the_card = set(Card.model_fields) - {"edge"}
    answers = (
        answer
        for path in api["paths"].values()
        for method in path.values()
        for answer in method["responses"]
    )

    assert not [path for path in api["paths"] if path not in told]
    assert not [name for name in fields - of_the_card - {"ctx", "input"} if f"`{name}`" not in told]
    assert not [status for status in {*answers} if status not in told]


def test_every_variable_that_the_code_reads_or_sets_is_listed() -> None:
    told = page("reference/environment-variables.md")
    sources = (
        path.read_text(encoding="utf-8")
        for room in ROOMS
        for path in (REPOSITORY / room).rglob("*.py")
    )
    found = {
        name for source in sources for pair in _VARIABLE.findall(source) for name in pair if name
    }

    assert {"TLD_WEBHOOK", "TLD_TRACEBACK", "MLFLOW_TRACKING_URI", "RANK", "CXX"} <= found
    assert not [name for name in found - OF_OTHERS if name not in told]


def test_every_column_and_array_of_an_encoded_shard_is_described() -> None:
    told = page("reference/encoded-shards.md")
    names = [*SCHEMA.names, MORE_CAPTIONS.name, *EncodedArrays.__dataclass_fields__]

    assert not [name for name in names if f"`{name}`" not in told]


def test_every_field_of_a_manifest_and_of_a_receipt_is_described() -> None:
    told = page("reference/workspace.md")

    assert not [
        name
        for name in {*Manifest.model_fields, *Shard.model_fields} - {"folder"}
        if f"`{name}`" not in told
    ]


def test_the_glossary_is_in_order() -> None:
    terms = re.findall(
        r"^\| ([^|]+) \|", page("reference/glossary.md").partition("## Terms")[2], re.MULTILINE
    )
    keys = [
        re.sub(r"[^a-z ]", "", term.lower().replace("é", "e"))
        for term in terms
        if term not in ("term", "---")
    ]

    assert len(keys) > 80
    assert keys == sorted(keys)


def test_every_decision_is_in_the_index_and_has_its_three_parts() -> None:
    decisions = sorted(path for path in (DOCS / "adr").glob("*.md") if path.name != "index.md")

    assert re.findall(r"\]\((\d{4}[\w-]+\.md)\)", page("adr/index.md")) == [
        path.name for path in decisions
    ]
    for path in decisions:
        assert re.findall(r"^## (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE) == [
            *("Context", "Decision", "Consequences")
        ], path


def test_relative_links_of_these_pages_lead_somewhere() -> None:
    pages = [
        path
        for folder in ("reference", "explanation", "adr")
        for path in (DOCS / folder).glob("*.md")
    ]
    made_elsewhere = ("../tutorials/", "../how-to/", "../benchmarks.md")
    for path in pages:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
            if not target.startswith(("http", *made_elsewhere)):
                assert (path.parent / Path(target)).exists(), f"{path.name}: {target}"
