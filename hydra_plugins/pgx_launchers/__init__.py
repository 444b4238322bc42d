"""Hydra plugins that run the jobs of a sweep: a sweeper over planned jobs, and launchers for joblib, Ray, submitit."""
