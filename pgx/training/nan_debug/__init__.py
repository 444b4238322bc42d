"""Numbers that are not finite: what failed, where it began, and what it takes to see it again."""
