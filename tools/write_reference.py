"""The files that follow from the code: the reference pages of every setting and every command of
`tld`, and the JSON Schema of configs.

python -m tools.write_reference            writes them
python -m tools.write_reference --check    writes nothing; exits with 1 and names each stale file
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.reference_of_commands import commands_page
from tools.reference_of_settings import settings_page
from tools.schema_of_settings import schema_page

REPOSITORY = Path(__file__).parents[1]
PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/settings.md": settings_page,
    "docs/reference/cli.md": commands_page,
    "pipeline/config/presets/tld.schema.json": schema_page,
}


def stale_pages(folder: Path) -> list[Path]:
    """Files of the repository that are missing, or differ from what the code says."""
    paths = {folder / name: page for name, page in PAGES.items()}
    return [
        path
        for path, page in paths.items()
        if not path.exists() or path.read_text(encoding="utf-8") != page()
    ]


def write_pages(folder: Path) -> None:
    """Write every file."""
    for name, page in PAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(page(), encoding="utf-8")


def main(words: Sequence[str] | None = None, folder: Path = REPOSITORY) -> None:
    """Write the files, or check them. Exits with 1 where a checked one is stale."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.write_reference", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; name the files that are stale"
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
