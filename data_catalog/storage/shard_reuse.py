"""Reuse of finished shards between outputs, so that a table that grew, or a repeated download,
costs only the new work.

A shard is reused if it would be made from the same inputs. Its recipe, a digest that the stage
computes, covers all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data_catalog.storage.cached_files import ensure_local, exists_anywhere
from data_catalog.storage.files import link_or_copy
from data_catalog.storage.receipts import Shard, read_receipt, receipt_path, write_receipt

ReuseShard = Callable[[Path, str, str], Shard | None]
"""(folder, shard name, recipe) -> the shard, which is now finished in the folder, or None"""


def reuse_shard(folder: Path, name: str, recipe: str) -> Shard | None:
    """Link the files of a shard with this name and recipe from another output beside `folder` into
    it. Returns the shard, or None if there is no such shard."""
    for receipt in sorted(folder.parent.glob(f"*/{receipt_path(folder, name).name}")):
        other = receipt.parent
        shard = read_receipt(other, name) if other != folder else None
        if (
            shard
            and shard.recipe == recipe
            and all(exists_anywhere(other / file) for file in shard.files)
        ):
            for file in shard.files:
                link_or_copy(ensure_local(other / file), folder / file)
            write_receipt(folder, shard)
            return shard
    return None


def reuse_nothing(_folder: Path, _name: str, _recipe: str) -> Shard | None:
    """Reuse no shard, for a stage that is forced to run again."""
    return None
