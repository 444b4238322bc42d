"""Whole episodes on disk, with the probabilities that their actions were taken with."""
