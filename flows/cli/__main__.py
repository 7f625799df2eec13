"""`python -m flows.cli`: the command line of a checkout that is not installed."""

from flows.cli.app import main

main()
