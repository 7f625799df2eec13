"""Two ranks that meet; then the second one fails while the first waits for it."""

from __future__ import annotations

import os

from pipeline.compute.ranks import joined_ranks


def main() -> None:
    with joined_ranks("cpu") as (ranks, _):
        if os.environ["RANK"] == "1":
            raise ValueError("the second rank cannot go on")
        ranks.any(False)


if __name__ == "__main__":
    main()
