"""Content-Security-Policy of a page: its own scripts, styles and server, and nothing else."""

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
    return _policy(f"'sha256-{hashes['script']}'", f"'sha256-{hashes['style']}'", images)


def files_policy(images: str = "blob: data:") -> str:
    """The policy of a page whose scripts and styles are files of its own server. All other answers
    of that server must be marked as no scripts (nosniff)."""
    return _policy("'self'", "'self'", images)


def _policy(scripts: str, styles: str, images: str) -> str:
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src {images}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
