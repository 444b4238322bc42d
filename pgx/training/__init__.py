"""The trainer, its loops, health metrics and evaluation, and the construction of a run from its config."""
