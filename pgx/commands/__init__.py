"""What each verb does, one file a verb; pgx.cli reads the command line."""
