"""Policies as files that run without pgx."""
