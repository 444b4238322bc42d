"""Worker processes: fresh interpreters that end with the process that started them. Linux."""
