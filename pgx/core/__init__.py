"""Data types that cross packages, specs, errors, the schema of values, seeding, periodic triggers."""
