"""Pure functions of tensors: each formula is defined here once."""
