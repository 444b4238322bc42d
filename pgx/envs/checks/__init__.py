"""Checks of what training assumes of an environment (`pgx check`)."""
