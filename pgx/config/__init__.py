"""Overrides to a validated config: compose the YAML files, check every value, refuse unused keys."""
