"""What each verb does, one file a verb; pgx.cli.main reads the command line."""
