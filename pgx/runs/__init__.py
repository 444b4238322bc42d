"""A run directory: writer, checkpoints, lock, names, versions, metric table and loggers."""
