"""Diagnosis of NaN and infinity: the failed update, its origin, and the data to reproduce it."""
