"""pgx: a laboratory for policy-gradient methods."""

__version__ = "0.1.0"
