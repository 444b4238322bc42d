"""Export of policies to files that run without pgx."""
