"""Stop a run when its return no longer improves, with a callback in a script of your own.

    python custom_callback.py algo=ppo env=CartPole-v1 trainer.total_steps=200_000

The arguments are those of `pgx train`. `metrics.jsonl` and TensorBoard show the metric of the callback as
`patience/waited`.
"""

import sys
from typing import ClassVar

from pgx.config.compose import compose
from pgx.config.validate import validate
from pgx.core.metrics import Metric
from pgx.training.build import build
from pgx.training.callbacks import STOP, Stop, TrainingState, as_callback


class EarlyStop:
    """Callback that ends a run when the best return is older than `patience` environment steps."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("waited", "steps", "environment steps since the best recent return", section="patience"),
    )

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best_return, self.best_step = float("-inf"), 0

    def on_iteration(self, state: TrainingState) -> Stop | None:
        """Log the age of the best return; stop if it exceeds the patience."""
        if state.recent_return is not None and state.recent_return > self.best_return:
            self.best_return, self.best_step = state.recent_return, state.step
        state.log("waited", float(state.step - self.best_step))
        return STOP if state.step - self.best_step > self.patience else None


if __name__ == "__main__":
    trainer = build(validate(compose(sys.argv[1:])))
    trainer.callbacks.append(as_callback(EarlyStop(patience=20_000)))
    summary = trainer.train()
    print(
        f"{trainer.run_dir}: {summary['status']} at {summary['steps']:,} steps, best return {summary['best_return']}"
    )
