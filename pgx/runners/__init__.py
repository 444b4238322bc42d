"""From an agent and environments to rollouts."""
