"""Action masks: forbidden actions are never taken, and the mask of a row belongs to its observation."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.toy_text.taxi import TaxiEnv
from torch import Tensor

from pgx.core.agent import step_observations
from pgx.core.data import Rollout
from pgx.core.errors import RunError
from pgx.rollouts import collector
from tests.conftest import Make
from tests.environments import Masked

MASKED = ["env=tests.environments:Masked-v0", "env.normalize_obs=false"]
KINDS = {
    "one choice": ([5], ["env.kwargs.several=false"]),
    "two choices": ([3, 4], ["env.kwargs.several=true"]),
    "cut": ([5], ["env.kwargs.cut=true"]),
}
kinds = pytest.mark.parametrize(("sizes", "kind"), KINDS.values(), ids=KINDS)
RULES = {
    "trpo": ["algo=trpo", "algo.critic_minibatch_size=64"],
    "ppo": ["algo=ppo"],
    "npg": ["algo=npg", "algo.critic_minibatch_size=64"],
    "npg, compatible": [
        "algo=npg",
        "algo.critic_minibatch_size=64",
        "algo.solver=compatible",
        "algo.fisher=empirical",
        "algo.damping=0.1",
    ],
    "a2c": ["algo=a2c"],
    "mdpo": ["algo=mdpo"],
    "ppo_kl": ["algo=ppo_kl"],
}


def expected(obs: Tensor, sizes: list[int]) -> Tensor:
    """Return the masks [B, K] of observations [B, 2], which contain step and phase."""
    rows = [np.concatenate(Masked.allowed(int(step), int(phase), sizes)) for step, phase in obs.tolist()]
    return torch.from_numpy(np.stack(rows))


def chosen(mask: Tensor, action: Tensor, sizes: list[int]) -> Tensor:
    """Return whether masks [B, K] allow actions [B] or [B, m]; [B, m]."""
    parts = zip(mask.split(sizes, -1), action.view(len(mask), -1).unbind(-1), strict=True)
    return torch.stack([part.gather(-1, a.unsqueeze(-1)).squeeze(-1) for part, a in parts], -1)


@pytest.mark.parametrize(
    ("several", "rule"),
    [  # each rule alternately with one or several components; the others in `make test-all`
        pytest.param(
            several, rule, id=f"{several}-{name}", marks=[] if (number + place) % 2 else pytest.mark.system
        )
        for place, several in enumerate(("false", "true"))
        for number, (name, rule) in enumerate(RULES.items())
    ],
)
def test_no_rule_takes_a_forbidden_action_in_training_or_evaluation(
    make: Make, rule: list[str], several: str
) -> None:
    """The environment raises at a forbidden action. Rewards favour high numbers, so that greedy actions differ."""
    evaluated = ["trainer.eval_every=256", "trainer.eval_episodes=6"]
    trainer = make(*rule, *MASKED, f"env.kwargs.several={several}", *evaluated)
    trainer.train()
    nets = (trainer.agent.policy, trainer.agent.critic)
    assert all(bool(p.isfinite().all()) for net in nets for p in net.parameters())


@pytest.mark.parametrize("shift", [None, 1])
def test_an_agent_without_the_mask_or_with_the_previous_one_is_detected(
    make: Make, shift: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above can fail."""
    trainer = make("algo=ppo", *MASKED)
    seen: list[Tensor | None] = [None]

    def late(normalize_fn: Any, obs: Tensor, time: Tensor, mask: Tensor | None, memory: Tensor | None) -> Any:
        seen.append(mask)
        return step_observations(normalize_fn, obs, time, None if shift is None else seen[-2], memory)

    monkeypatch.setattr(collector, "step_observations", late)
    with pytest.raises(RunError, match="not allowed at step"):
        trainer.runner.collect(trainer.agent)


def collected(make: Make, *overrides: str, rollouts: int = 2) -> list[tuple[Rollout, Any]]:
    """Collect rollouts, and return each with the rule's batch."""
    trainer = make("algo=ppo", *MASKED, *overrides)
    found = []
    for _ in range(rollouts):
        rollout = trainer.runner.collect(trainer.agent)
        found.append((rollout, trainer.algorithm.estimate(trainer.agent, rollout)))
    return found


@kinds
@pytest.mark.parametrize("runner", ["sync", "episodes", "lagging"])
def test_a_row_s_mask_belongs_to_its_observation(
    make: Make, sizes: list[int], kind: list[str], runner: str
) -> None:
    """Masks of consecutive steps and of consecutive episodes differ, so that a shift by one is detected."""
    how = {"sync": [], "episodes": ["runner=episodes", "runner.episodes_per_env=6", "algo.minibatch_size=30"]}
    for rollout, batch in collected(make, *kind, *how.get(runner, ["runner.lag=1"])):
        assert rollout.action_mask is not None and rollout.action_mask.dtype == torch.bool
        assert rollout.action_mask.shape == (*rollout.valid.shape, sum(sizes))
        assert int((rollout.time[rollout.valid] == 0).sum()) > 8  # episodes began in it
        mask = rollout.action_mask[rollout.valid]
        assert torch.equal(mask, expected(rollout.obs[rollout.valid], sizes))
        assert torch.equal(batch.obs.action_mask, expected(batch.obs.features, sizes))
        assert bool(chosen(mask, rollout.action[rollout.valid], sizes).all())
        index = torch.tensor([17, 3, 3, 40])
        part = batch.rows(index)
        assert torch.equal(part.obs.action_mask, expected(part.obs.features, sizes))


@kinds
def test_the_first_ratio_is_one_and_the_entropy_is_that_of_allowed_actions(
    make: Make, sizes: list[int], kind: list[str]
) -> None:
    trainer = make("algo=ppo", *MASKED, *kind)
    batch = trainer.algorithm.estimate(trainer.agent, trainer.runner.collect(trainer.agent))
    with torch.no_grad():
        d = trainer.agent.policy(batch.obs)
    assert float((d.log_prob(batch.action) - batch.log_prob).abs().max()) < 2e-5
    most = sum(part.sum(-1).double().log() for part in batch.obs.action_mask.split(sizes, -1))
    assert bool((d.entropy() <= most + 1e-6).all())
    assert float((d.entropy() - most).abs().max()) < 1e-2  # the first policy is nearly uniform


def test_a_reset_row_may_forbid_all_actions(make: Make) -> None:
    """Masked does so after an end; the next step only resets, and its row is not data."""
    ((rollout, _),) = collected(make, rollouts=1)
    assert bool(rollout.action_mask[~rollout.valid].all())
    assert int((~rollout.valid).sum()) > 10


def test_a_step_without_a_mask_allows_all_actions(make: Make) -> None:
    for rollout, batch in collected(make, "env.kwargs.shows=even"):
        even = batch.obs.features[:, 0] % 2 == 0
        assert torch.equal(batch.obs.action_mask[even], expected(batch.obs.features[even], [5]))
        assert bool(batch.obs.action_mask[~even].all())
        assert int(even.sum()) > 20 and int((~even).sum()) > 20
        assert rollout.action_mask.shape == (64, 4, 5)


def test_steps_without_any_mask_are_valid_rows(make: Make) -> None:
    """With one environment there is no mask at odd steps."""
    for rollout, _ in collected(make, "env.kwargs.shows=even", "env.num_envs=1", rollouts=1):
        assert rollout.action_mask.shape == (64, 1, 5)
        odd = rollout.valid & (rollout.time % 2 == 1)
        assert bool(rollout.action_mask[odd].all())
        assert not bool(rollout.action_mask[rollout.valid & ~odd].all(-1).any())


def test_a_mask_may_be_a_tuple_as_in_gymnasium_s_spaces(make: Make) -> None:
    ((_, batch),) = collected(make, "env.kwargs.several=true", "env.kwargs.shows=tuple", rollouts=1)
    assert torch.equal(batch.obs.action_mask, expected(batch.obs.features, [3, 4]))


def test_the_error_of_a_mask_of_the_wrong_length_names_its_shape(make: Make) -> None:
    trainer = make("algo=ppo", *MASKED, "env.kwargs.shows=short")
    with pytest.raises(RunError, match=r"Masked-v0.*environment 0 has the shape \[4\]; expected \[5\]"):
        trainer.runner.collect(trainer.agent)


@pytest.mark.parametrize("several", ["false", "true"])
def test_a_mask_that_forbids_all_actions_within_an_episode_is_an_error(make: Make, several: str) -> None:
    trainer = make("algo=ppo", *MASKED, "env.kwargs.shows=nothing", f"env.kwargs.several={several}")
    with pytest.raises(RunError, match=r"environment 0 .*forbids every action"):
        trainer.runner.collect(trainer.agent)


class MaskedLever(Masked):
    """Environment with a mask for continuous actions."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(-1.0, 1.0, (1,))


class HalfMasked(Masked):
    """Environment that forbids all choices of its second component."""

    def __init__(self) -> None:
        super().__init__(several=True)

    def _info(self, ended: bool) -> dict[str, Any]:
        return {"action_mask": np.array([1, 1, 1, 0, 0, 0, 0], np.int8)}


for name, kind in (("MaskedLever", MaskedLever), ("HalfMasked", HalfMasked)):
    if f"{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"{name}-v0", kind)


def test_a_mask_for_continuous_actions_is_refused(make: Make) -> None:
    trainer = make("algo=ppo", "env=tests.envs.test_masks:MaskedLever-v0")
    with pytest.raises(RunError, match="a mask needs discrete actions"):
        trainer.runner.collect(trainer.agent)


def test_every_component_needs_an_allowed_choice(make: Make) -> None:
    trainer = make("algo=ppo", "env=tests.envs.test_masks:HalfMasked-v0")
    with pytest.raises(RunError, match=r"environment 0 .*forbids every action"):
        trainer.runner.collect(trainer.agent)


@pytest.mark.system
def test_masks_of_taxi_are_those_of_its_states(make: Make) -> None:
    """Taxi's observation is its state, from which the expected mask of each row follows."""
    newest = max(name for name in gymnasium.registry if name.startswith("Taxi-"))
    trainer = make("algo=ppo", f"env={newest}", "env.backend=gymnasium", "trainer.total_steps=1024")
    taxi = TaxiEnv()
    for _ in range(2):
        rollout = trainer.runner.collect(trainer.agent)
        obs, action = rollout.obs[rollout.valid], rollout.action[rollout.valid]
        truth = torch.from_numpy(np.stack([taxi.action_mask(int(state)) for state in obs]).astype(bool))
        assert torch.equal(rollout.action_mask[rollout.valid], truth)
        assert not bool(truth.all())
        assert bool(chosen(truth, action, [6]).all())
    trainer.train()
