"""The rules of axe, which looks at a page as those do who cannot see it or use no mouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def violations(page: Page) -> list[str]:
    """What breaks a rule in a page as it is now, in its light and its dark colours."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe is missing: make install")
    page.evaluate(axe.AXE_SCRIPT)
    lines: list[str] = []
    for scheme in _SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        result = page.evaluate(
            "rules => axe.run({ runOnly: { type: 'tag', values: rules } })", _RULES
        )
        assert len(result["passes"]) > 5, "the rules were applied"
        for broken in result["violations"]:
            lines += [
                f"{scheme}: {broken['help']}: {node['html'][:120]}" for node in broken["nodes"]
            ]
    return lines
