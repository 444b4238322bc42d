"""Arguments of each command of `pgx`; its body is in pgx.cli.commands and imported when it is called."""
