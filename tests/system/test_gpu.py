"""A run with device=cuda, on a simulated GPU, equals the run on the CPU to the bit."""

import pytest
import torch

from tests.conftest import Make, parameters, resumed_run, small
from tests.pretended_gpu import OnGPU, pretended

WALKER = "env=Walker2d-v4"
RUNS = [
    ["algo=a2c", "env=FrozenLake-v1"],
    ["algo=actor_critic"],
    ["algo=mdpo", WALKER],
    ["algo=npg"],
    ["algo=npg", "algo.solver=exact", "policy.hidden=[4]"],
    ["algo=npg", "algo.solver=compatible", "algo.fisher=empirical", "policy.hidden=[4]"],
    ["algo=off_policy_reinforce"],
    ["algo=ppg"],
    ["algo=ppo", WALKER],
    pytest.param(["algo=ppo", "policy=gru", "policy.sequence_length=16"], marks=pytest.mark.slow),
    ["algo=ppo_kl"],
    ["algo=reinforce"],
    ["algo=trpo", WALKER, "trainer.eval_every=256", "trainer.eval_episodes=1"],
    ["algo=trpo", "algo.fisher=kl_hessian", "critic_optimizer=lbfgs", "critic_optimizer.iterations=2"],
    ["algo=vtrace", "runner.lag=1"],
    ["algo=actor_critic", "critic=q", "algo.form=q"],
    ["algo=a2c", "policy=random_fourier", "critic=fourier"],
    ["algo=reinforce", "env=FrozenLake-v1", "policy=tabular"],
    pytest.param(["algo=impala"], marks=pytest.mark.slow),
]


@pytest.mark.parametrize("run", RUNS, ids=" ".join)
def test_a_run_on_the_gpu_equals_the_run_on_the_cpu(
    run: list[str], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["env=CartPole-v1", *small(run[0].removeprefix("algo=")), *run]
    plain = make(*overrides, name="plain")
    plain.train()
    with pretended(monkeypatch):
        trainer = make(*overrides, "device=cuda", name="gpu")
        assert all(isinstance(parameter.data, OnGPU) for parameter in trainer.agent.policy.parameters())
        trainer.train()
        found = parameters(trainer).cpu()
    assert torch.equal(found, parameters(plain))


def test_a_resumed_run_on_the_gpu_ends_with_the_bits_of_an_uninterrupted_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*small("ppo"), "env=CartPole-v1", "device=cuda", "trainer.checkpoint_every=256"]
    with pretended(monkeypatch):
        whole = make(*overrides, name="whole")
        whole.train()
        again = resumed_run(make, *overrides, at=256)
        assert torch.equal(parameters(whole).cpu(), parameters(again).cpu())
