"""What Hydra finds and calls to run the jobs of a sweep: a sweeper over planned jobs, and launchers for libraries."""
