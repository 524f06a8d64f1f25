"""`python -m streampose` is the `streampose` command."""

from streampose.cli.main import main

main()
