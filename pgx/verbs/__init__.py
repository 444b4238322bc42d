"""What each verb of `pgx` takes on the command line; what it does is in pgx.commands, imported when it is asked for."""
