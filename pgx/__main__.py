"""`python -m pgx` is `pgx`."""

from pgx.cli import main

main()
