"""Escaping of untrusted text (captions, URLs, file names) for terminals and spreadsheets.

HTML is escaped by the templates (Jinja's autoescape, textContent on the page of `tld serve`).
"""

from __future__ import annotations

import re

# Control characters except tab and newline, which terminals obey, and the Unicode characters that
# reorder text, which can make a line read as something else.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r]")


def visible(text: str) -> str:
    r"""The text with its control characters escaped, as in `\x1b[2J`."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def csv_cell(value: object) -> object:
    """A cell of a CSV file that people open in a spreadsheet: control characters are escaped, and
    text that a spreadsheet would evaluate is prefixed with an apostrophe, as OWASP advises."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if _FORMULA.match(value) else text
