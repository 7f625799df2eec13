"""`python -m flows.cli`: the command line of a checkout that is not installed."""

import sys
from pathlib import Path

if not sys.flags.safe_path and Path(sys.path[0]) != Path(__file__).parents[2]:
    del sys.path[0]  # the current folder, which `-m` adds, is not that of the checkout

from flows.cli.app import main

main()
