"""Train runs one after another, on the ranks of torchrun or in one process, for tests that compare them.

[torchrun ...] rank_jobs.py FOLDER    reads FOLDER/jobs.json, {name: overrides}; writes FOLDER/NAME/ and
                                      FOLDER/NAME.RANK.pt, the final state of each rank
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from pgx.config.compose import compose
from pgx.config.validate import validate
from pgx.core.data import Batch
from pgx.core.ranks import Ranks
from pgx.distributed.torchrun import join_process_group, leave_process_group
from pgx.training.build import build
from pgx.training.trainer import Trainer


def rows_seen(trainer: Trainer) -> list[int]:
    """Record the number of rows of this rank in each estimated batch; return the growing list."""
    seen: list[int] = []
    inner = trainer.algorithm.estimate

    def estimate(*arguments: Any) -> Batch:
        batch = inner(*arguments)
        seen.append(len(batch))
        return batch

    trainer.algorithm.estimate = estimate  # type: ignore[method-assign]
    return seen


def work(ranks: Ranks, folder: Path) -> None:
    for name, overrides in json.loads((folder / "jobs.json").read_text()).items():
        trainer = build(validate(compose([*overrides, f"run_dir={folder / name}"])), ranks)
        before = [p.detach().clone() for p in trainer.agent.policy.parameters()]
        rows = rows_seen(trainer)
        trainer.train()
        state = trainer.state_dict()
        del state["counters"]["seconds"]
        torch.save({"before": before, "rows": rows, **state}, folder / f"{name}.{ranks.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # rounding of sums in another order is smaller
    work(join_process_group(), Path(sys.argv[1]))
    leave_process_group()
