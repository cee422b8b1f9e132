"""`python -m memory3.cli`, the same as `memory3`."""

from memory3.cli import main

main()
