"""The documentation as tests read it: README.md, the pages of docs, other Markdown files."""

from __future__ import annotations

import re

from tests.support.command import REPOSITORY

_FENCE = re.compile(r"^([ \t]*)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def documents() -> dict[str, str]:
    """README.md and the pages of docs, by their paths in the repository."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    return {str(page.relative_to(REPOSITORY)): page.read_text() for page in pages}


def all_documents() -> dict[str, str]:
    """Those, and the Markdown files beside README.md: BENCHMARKS.md, CONTRIBUTING.md, …"""
    return documents() | {page.name: page.read_text() for page in sorted(REPOSITORY.glob("*.md"))}


def blocks(text: str, *languages: str) -> list[str]:
    """Fenced code of these languages; "" is that of none."""
    return [
        re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)
        for indent, language, code in _FENCE.findall(text)
        if language in languages
    ]


def without_blocks(text: str) -> str:
    """The text around fenced code."""
    return _FENCE.sub("", text)


def python_with(word: str) -> str:
    """The one Python block of the documentation that holds this word."""
    (code,) = [
        code for text in documents().values() for code in blocks(text, "python") if word in code
    ]
    return code
