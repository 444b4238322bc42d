"""Runs as their folders tell of them, whoever wrote these."""
