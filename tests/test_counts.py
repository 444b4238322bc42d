"""Numbers of calls in an iteration, which determine the speed, independent of the machine."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from pgx.compiler.choose import compilation_problem
from pgx.compiler.program import Program
from pgx.training.trainer import Trainer
from tests.conftest import Make

STEPS, ENVS, EPOCHS, MINIBATCH = (
    64,
    4,
    3,
    64,
)  # the sizes of tests/compiler, whose programs are reused here
SIZES = [
    "env=Walker2d-v4",
    f"env.num_envs={ENVS}",
    f"runner.rollout_steps={STEPS}",
    f"trainer.total_steps={STEPS * ENVS}",
]
PPO = ["algo=ppo", *SIZES, f"algo.epochs={EPOCHS}", f"algo.minibatch_size={MINIBATCH}"]


def one_iteration(trainer: Trainer) -> dict[str, Any]:
    """Train for one rollout; return the summary."""
    trainer.total_steps = 1
    return trainer.train()


def counted(module: Any, calls: Counter[str], name: str) -> None:
    module.register_forward_hook(lambda *_: calls.update([name]))


def minibatch_steps(rows: int) -> int:
    return EPOCHS * max(1, round(rows / MINIBATCH))


def test_networks_are_evaluated_no_more_often_than_the_rule_needs(make: Make) -> None:
    trainer = make(*PPO, "trainer.compile=false")
    calls: Counter[str] = Counter()
    counted(trainer.agent.policy, calls, "policy")
    counted(trainer.agent.critic, calls, "critic")
    summary = one_iteration(trainer)
    steps = minibatch_steps(summary["steps"])
    acting, shape_of_noise, health, clipping, normalizer = STEPS, 1, 2, 1, 2
    assert summary["iterations"] == 1
    assert calls["policy"] == acting + shape_of_noise + health + clipping + normalizer + steps
    estimates, explained_after = 2, 1  # one for the update, one for its health
    assert calls["critic"] == estimates + explained_after + steps


@pytest.mark.system
@pytest.mark.skipif(
    compilation_problem("cpu") is not None, reason=f"nothing compiles here: {compilation_problem('cpu')}"
)
def test_a_compiled_iteration_calls_one_program_per_epoch_and_step(
    make: Make, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of acting calls one program, health one per iteration, an epoch one loop for each network."""
    calls: Counter[str] = Counter()
    run, scan = Program.__call__, Program.scan

    def counted_run(program: Program, tensors: list[Tensor]) -> list[Tensor]:
        calls["run"] += 1
        return run(program, tensors)

    def counted_scan(
        program: Program, fixed: Any, items: Any, state: Any
    ) -> tuple[list[Tensor], list[Tensor]]:
        calls["scan"] += 1
        calls["minibatches"] += len(items)
        return scan(program, fixed, items, state)

    monkeypatch.setattr(Program, "__call__", counted_run)
    monkeypatch.setattr(Program, "scan", counted_scan)
    summary = one_iteration(make(*PPO, "trainer.compile=true"))
    acting, health = STEPS, 1
    assert calls["run"] == acting + health
    assert calls["scan"] == 2 * EPOCHS
    assert calls["minibatches"] == 2 * minibatch_steps(summary["steps"])


@pytest.mark.parametrize("cg_steps", [1, 4])
def test_a_trust_region_step_takes_no_products_but_those_of_conjugate_gradient(
    make: Make, monkeypatch: pytest.MonkeyPatch, cg_steps: int
) -> None:
    """In eager mode, the forward pass of the products runs once."""
    import pgx.algos.trpo as trpo

    calls: Counter[str] = Counter()
    original = trpo.FISHER_PRODUCTS["gauss_newton"]

    def product(*arguments: Any) -> Callable[[Tensor], Tensor]:
        calls["prepared"] += 1
        inner = original(*arguments)

        def times(vector: Tensor) -> Tensor:
            calls["products"] += 1
            return inner(vector)

        return times

    monkeypatch.setitem(trpo.FISHER_PRODUCTS, "gauss_newton", product)
    small = ["algo=trpo", *SIZES, f"algo.cg_steps={cg_steps}", "algo.critic_minibatch_size=64"]
    one_iteration(make(*small, "trainer.compile=false"))
    assert calls == {"prepared": 1, "products": cg_steps}
