"""Python API: train, load, compare and runs as objects; the command line is a layer over it."""
