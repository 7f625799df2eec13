"""Formulas of the documentation as MathML, which browsers draw by themselves: a hook of mkdocs.yml.

The usual scripts for formulas come from the network; the site needs none.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_of_mkdocs: object) -> str:
    """The HTML of a page with MathML where pymdownx.arithmatex left TeX."""
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    tag, bracket, tex = found.groups()
    formula = convert(html.unescape(tex), display="block" if bracket == "[" else "inline")
    return f"<{tag}>{formula}</{tag}>"
