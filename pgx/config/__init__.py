"""From the command line to a Trainer: compose the YAML, check every value, build the objects."""

from pgx.config.check import check, check_inputs
from pgx.config.compose import compose
from pgx.training.build import build

__all__ = ["build", "check", "check_inputs", "compose"]
