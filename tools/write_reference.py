"""The reference pages that follow from the code: every setting, and every command of `tld`.

python -m tools.write_reference            writes docs/reference/settings.md and cli.md
python -m tools.write_reference --check    writes nothing; exits with 1 and names each stale page
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.reference_of_commands import commands_page
from tools.reference_of_settings import settings_page

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
PAGES: dict[str, Callable[[], str]] = {"settings.md": settings_page, "cli.md": commands_page}


def stale_pages(folder: Path) -> list[Path]:
    """Pages that are missing, or differ from what the code says."""
    paths = {folder / name: page for name, page in PAGES.items()}
    return [
        path
        for path, page in paths.items()
        if not path.exists() or path.read_text(encoding="utf-8") != page()
    ]


def write_pages(folder: Path) -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


def main(words: Sequence[str] | None = None, folder: Path = FOLDER) -> None:
    """Write the pages, or check them. Exits with 1 where a checked page is stale."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.write_reference", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; name the pages that are stale"
    )
    if not parser.parse_args(words).check:
        write_pages(folder)
    elif stale := stale_pages(folder):
        names = "\n".join(f"  {path}" for path in stale)
        sys.exit(
            f"stale, since the code says something else:\n{names}\n"
            "run `python -m tools.write_reference`"
        )


if __name__ == "__main__":
    main()
