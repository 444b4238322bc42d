"""Parts that update rules share: advantages, surrogate, critic fit, sequences."""
