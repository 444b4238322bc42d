"""Reward shaping: terms, their quantities, and the weighted sum that replaces an environment's own reward."""
