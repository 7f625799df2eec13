"""The policy of a page covers exactly its own script and style."""

from __future__ import annotations

import base64
import hashlib

from flows.serve.content_policy import content_policy, files_policy


def test_only_the_pages_own_script_and_style_are_allowed() -> None:
    policy = content_policy("<style>a{}</style><script>go()</script>", images="'self'")
    for text in ("a{}", "go()"):
        assert (
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            in policy
        )
    assert "img-src 'self'; connect-src 'self'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_a_page_of_several_files_may_load_those_of_its_server() -> None:
    policy = files_policy()
    assert "script-src 'self'; style-src 'self'; img-src blob: data:;" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
