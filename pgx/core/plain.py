"""What anything may return: numbers by name, and states that checkpoints hold."""

from typing import Any

Metrics = dict[str, float]
State = dict[str, Any]
