"""`python -m kshot`."""

from kshot.cli.app import main

main()
