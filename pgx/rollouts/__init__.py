"""Sources of rollouts: synchronous collection, whole episodes, recorded episodes, actors."""
