"""Vector environments with one interface, their backends, and normalization of observations and rewards."""
