"""Command line of pgx, one module per command."""
