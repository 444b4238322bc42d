"""What scripts/bench.py is made of. Nothing here imports more than Python's own library, but where a file says so."""
