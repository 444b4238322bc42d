"""Groups of runs side by side: what `pgx compare` says."""
