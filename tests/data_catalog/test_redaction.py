"""What of a URL others may see."""

from __future__ import annotations

import re

import pytest

from data_catalog.redaction import holds_secret, public_name, redact_credentials, redacted
from data_catalog.url_table.files import UrlTableError
from tests.support.command import REPOSITORY


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:canary@host/t.csv", "https://host/t.csv"),
        ("https://canary@host:8/t.csv", "https://host:8/t.csv"),
        ("https://me:can/ary@host/t.csv", "https://host/t.csv"),
        (
            "https://host/t.csv?key=canary&auth=canary&jwt=",
            "https://host/t.csv?key=***&auth=***&***",
        ),
        ("https://host/t.csv?canary", "https://host/t.csv?***"),
        ("https://host/t.csv?a=1;b=canary", "https://host/t.csv?a=***&b=***"),
        ("https://host/t.csv#access_token=canary", "https://host/t.csv#***"),
        ("simplecache::https://me:canary@host/t.csv", "simplecache::https://host/t.csv"),
        (
            "zip://t.csv::https://canary@host/t.zip?key=canary",
            "zip://t.csv::https://host/t.zip?key=***",
        ),
        ("zip://t.csv?k=canary::s3://me:canary@bucket/t", "zip://t.csv?k=***::s3://bucket/t"),
        ("https://host/?next=https://me:canary@other/", "https://host/?next=***"),
        ("https://host/?a=b::c=canary", "https://host/?a=***"),
        ("abfs://me:canary@account/t.csv", "abfs://account/t.csv"),
        ("HTTPS://me:canary@host/t.csv", "HTTPS://host/t.csv"),
    ],
)
def test_of_a_url_scheme_host_and_path_are_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown
    assert holds_secret(url)
    assert redact_credentials(f"cannot read '{url}': 403") == f"cannot read '{shown}': 403"
    assert "canary" not in str(UrlTableError(f"URL table {url} is empty"))


@pytest.mark.parametrize(
    "url",
    [
        *(
            "shapes",
            "data/t.csv",
            "/data/a?b=c@d.csv",
            "s3://bucket/a@b/t.csv",
            "https://host:80/a@b",
            "http://[::1]/a@b",
        ),
        *(
            "github://owner:repository@main/t.csv",
            "abfs://container@account.dfs.core.windows.net/t.csv",
        ),
        *("hf://datasets/a/b@main/t.csv", "zip://t.csv::/data/t.zip", "https://host/page#section"),
    ],
)
def test_what_holds_no_secret_stays_as_it_is(url: str) -> None:
    assert redacted(url) == url
    assert not holds_secret(url)


def test_no_page_shows_the_url_of_a_table_as_it_is_set() -> None:
    pages = [
        path for folder in ("pipeline", "flows") for path in (REPOSITORY / folder).rglob("*.j2")
    ]
    assert pages
    assert not [
        path.name
        for path in pages
        if re.search(r"\{\{[^}]*\burls\b", path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14"),
        ("shapes-vae", "shapes-vae"),
        ("/home/me/encoders/vae", "vae"),  # does not exist here, as on the machine that serves
        ("encoders/of/mine/vae/", "vae"),
        ("s3://bucket/a/table.csv?key=secret", "table.csv"),
    ],
)
def test_what_is_published_of_a_name_holds_no_path(name: str, public: str) -> None:
    assert public_name(name) == public
