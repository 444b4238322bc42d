"""Callback that stops a run whose return no longer improves.

From the command line, with an argument:

    pgx train algo=ppo env=CartPole-v1 'callbacks=[{name: custom_callback:EarlyStop, patience: 20_000}]'

From Python:

    python custom_callback.py

`metrics.jsonl` and TensorBoard show the metric of the callback as `patience/waited`.
"""

from typing import ClassVar

import pgx


class EarlyStop:
    """Callback that ends a run when the best return is older than `patience` environment steps."""

    metrics: ClassVar[tuple[pgx.Metric, ...]] = (
        pgx.Metric("waited", "steps", "environment steps since the best recent return", section="patience"),
    )

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best_return, self.best_step = float("-inf"), 0

    def on_iteration(self, state: pgx.TrainingState) -> pgx.Stop | None:
        """Log the age of the best return; stop if it exceeds the patience."""
        if state.recent_return is not None and state.recent_return > self.best_return:
            self.best_return, self.best_step = state.recent_return, state.step
        state.log("waited", float(state.step - self.best_step))
        return pgx.STOP if state.step - self.best_step > self.patience else None


if __name__ == "__main__":
    run = pgx.train("ppo", "CartPole-v1", total_steps=200_000, callbacks=[EarlyStop(patience=20_000)])
    print(f"{run.run_dir}: {run.status} at {run.summary['steps']:,} steps")
