"""Rules with tabular policies find the optimal policy of a gridworld on three seeds. Takes minutes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pgx.config.compose import compose
from pgx.config.validate import validate
from pgx.training.build import build
from tests.conftest import QUIET
from tests.oracle import gridworld, objective, optimal_value

pytestmark = pytest.mark.slow

DISCOUNT = 0.99
TASK = [
    "env=tests.oracle:Gridworld-v0",
    f"env.discount={DISCOUNT}",
    "policy=tabular",
    "trainer.total_steps=60000",
    "logger.every=1000",
]
# Overrides of each rule: learning rates of tables are far above those of perceptrons.
RULES = {
    # With an entropy coefficient of 0 the policy converges too early on one seed of three; 0.01 keeps it too random.
    "a2c": [
        "critic=tabular",
        "optimizer.learning_rate=0.02",
        "critic_optimizer.learning_rate=0.05",
        "algo.entropy_coefficient=0.003",
    ],
    # Where pi is nearly deterministic, F is nearly 0 and a damping of 0.1 would dominate. All steps have equal length;
    # shorter ones end nearer to the optimum.
    "npg": [
        "critic=tabular",
        "critic_optimizer.learning_rate=0.05",
        "algo.solver=exact",
        "algo.damping=0.01",
        "algo.max_kl=0.02",
        "runner.rollout_steps=64",
    ],
    # At 1.0 and above it converges to a worse policy on some seeds.
    "reinforce": ["optimizer.learning_rate=0.5"],
}


def exact_return(pi: Tensor) -> float:
    return float(objective(gridworld(), pi, DISCOUNT))


@pytest.mark.parametrize("seed", [3, 4, 5])  # the values above were tuned on seeds 0, 1 and 2
@pytest.mark.parametrize("name", RULES)
def test_the_learned_table_is_worth_as_much_as_the_best_policy(tmp_path: Path, name: str, seed: int) -> None:
    """The return is within 2 % with most likely actions, and within 8 % with sampled ones, which explore."""
    overrides = [f"algo={name}", *TASK, *RULES[name], f"seed={seed}", f"run_dir={tmp_path}"]
    trainer = build(validate(compose([*QUIET, *overrides])))
    (theta,) = trainer.agent.policy.parameters()
    mdp = gridworld()
    best = float(mdp.start @ optimal_value(mdp, DISCOUNT))
    assert exact_return(theta.detach().double().softmax(-1)) < 0 < best
    trainer.train()
    pi = theta.detach().double().softmax(-1)
    greedy = torch.nn.functional.one_hot(pi.argmax(-1), mdp.actions).double()
    assert exact_return(greedy) >= 0.98 * best
    assert exact_return(pi) >= 0.92 * best
