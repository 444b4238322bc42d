"""Reads finished runs, and runs under way: nothing here trains, and nothing here writes into a run's folder."""
