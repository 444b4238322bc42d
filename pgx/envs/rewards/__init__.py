"""What is paid in place of an environment's own reward: named terms with weights, and where their quantities are."""
