"""A finished shard of one output serves in another, where it would be made from the same things: a
table that grew, or was asked again, costs only what is new.

What a shard is made from is its recipe, a digest that the stage states. Knows nothing of what it
says.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from data_catalog.storage.cached_files import ensure_local, exists_anywhere
from data_catalog.storage.files import replacing
from data_catalog.storage.receipts import Shard, read_receipt, receipt_path, write_receipt

ReuseShard = Callable[[Path, str, str], Shard | None]
"""(folder, shard's name, recipe) -> the shard, finished in the folder now; or None"""


def reuse_shard(folder: Path, name: str, recipe: str) -> Shard | None:
    """Find a shard of this name and recipe in the outputs beside `folder`, and link its files into
    it."""
    for receipt in sorted(folder.parent.glob(f"*/{receipt_path(folder, name).name}")):
        other = receipt.parent
        shard = read_receipt(other, name) if other != folder else None
        if (
            shard
            and shard.recipe == recipe
            and all(exists_anywhere(other / file) for file in shard.files)
        ):
            for file in shard.files:
                _link(ensure_local(other / file), folder / file)
            write_receipt(folder, shard)
            return shard
    return None


def reuse_nothing(_folder: Path, _name: str, _recipe: str) -> Shard | None:
    """For a stage that is to be done again, all of it."""
    return None


def _link(source: Path, target: Path) -> None:
    """By a link where the file system has them: files are only ever replaced, never written
    into."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with replacing(target) as unfinished:
            shutil.copyfile(source, unfinished)
