"""Parts of scripts/bench.py. They import only the standard library, unless a module says otherwise."""
