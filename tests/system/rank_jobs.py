"""Runs that tests compare, made one after another by whatever ranks torchrun starts this on, or by one process.

[torchrun ...] rank_jobs.py FOLDER    reads FOLDER/jobs.json, {name: overrides}; leaves FOLDER/NAME/ and
                                      FOLDER/NAME.RANK.pt, what each rank holds at the end
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
    """Filled with the rows here of every batch that the rule estimates from now on."""
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
    torch.set_default_dtype(torch.float64)  # sums in another order differ by less than anything else could
    work(join_process_group(), Path(sys.argv[1]))
    leave_process_group()
