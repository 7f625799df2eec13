"""Content-Security-Policy of a page that is one file with its own script and style."""

from __future__ import annotations

import base64
import hashlib
import re


def content_policy(page: str, images: str = "blob: data:") -> str:
    """Allow only the page's own script and style, connections to its own server, and images from
    these sources."""
    parts = {
        tag: re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL) for tag in ("script", "style")
    }
    hashes = {
        tag: base64.b64encode(hashlib.sha256(match.group(1).encode()).digest()).decode()
        for tag, match in parts.items()
        if match
    }
    return (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src "
        f"'sha256-{hashes['style']}'; "
        f"img-src {images}; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
