"""RolloutCollector and its buffer: rollouts are what happened, and each row is stored once, while environments step."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

import tests.environments  # noqa: F401, registers ids
from pgx.algos.common.advantages import rollout_observations
from pgx.compiler import Eager
from pgx.core.agent import Agent, Normalizer
from pgx.core.data import Rollout
from pgx.core.specs import Continuous, ObsSpec
from pgx.envs.make import BackendChoice, make_envs
from pgx.envs.normalizers import Identity, ObservationNormalizer, RewardScaler
from pgx.envs.rewards.spec import NO_SHAPING
from pgx.envs.vector import AnyArray, Step, VectorEnv
from pgx.networks import POLICIES
from pgx.networks.tabular import Zero
from pgx.rollouts.collector import RolloutBuffer, RolloutCollector
from pgx.rollouts.sync import SyncRunner

CPU = torch.device("cpu")
COLUMNS: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
    "obs": ((3, 2), np.uint8),
    "action": ((4,), np.float32),
    "reward": ((), np.float64),
    "terminated": ((), np.bool_),
    "time": ((), np.int64),
}


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 200, shape)


@pytest.mark.parametrize("capacity", [1, 2, 7, 64])
def test_the_buffer_returns_rows_as_written(capacity: int) -> None:
    """Bit for bit and with their dtypes, in a buffer that is too small or too large at first."""
    rng = np.random.default_rng(0)
    buffer = RolloutBuffer(capacity)
    written = {name: numbers(rng, 41, 5, *shape).astype(kind) for name, (shape, kind) in COLUMNS.items()}
    for t in range(41):
        for name, values in written.items():
            buffer.write(name, t, values[t])
        buffer.steps = t + 1
    for name, values in written.items():
        assert buffer[name].dtype == values.dtype
        assert buffer[name].tobytes() == values.tobytes() and buffer[name].shape == values.shape
        tensor = buffer.tensor(name, CPU)
        assert torch.equal(tensor, torch.from_numpy(values))


def test_the_buffer_copies_values() -> None:
    buffer, values = RolloutBuffer(capacity=4), np.zeros(2)
    buffer.write("reward", 0, values)
    values += 7
    buffer.steps = 1
    assert buffer["reward"].tolist() == [[0.0, 0.0]]


def test_the_buffer_returns_complete_rows_and_extra_rows() -> None:
    buffer = RolloutBuffer(capacity=8)
    for t in range(6):
        buffer.write("obs", t, np.array([t]))
    buffer.steps = 5
    assert buffer["obs"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert buffer.tensor("obs", CPU)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert buffer.tensor("obs", CPU, extra_rows=1)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("capacity", [1, 2, 64])
def test_rows_not_written_are_ones(capacity: int) -> None:
    """For environments that have masks only at times: without a mask every action is allowed."""
    buffer = RolloutBuffer(capacity)
    mask = np.zeros((3, 4), dtype=bool)
    buffer.write("action_mask", 5, mask)
    buffer.write("action_mask", 30, mask)
    buffer.steps = 31
    expected = np.ones((31, 3, 4), dtype=bool)
    expected[[5, 30]] = False
    assert np.array_equal(buffer["action_mask"], expected)


def test_the_buffer_contains_written_columns() -> None:
    buffer = RolloutBuffer(capacity=1)
    assert "reward" not in buffer
    buffer.write("reward", 0, np.zeros(1))
    assert "reward" in buffer and "recurrent_state" not in buffer


def test_rows_can_be_changed_in_place() -> None:
    """A runner marks rows after a step, for example those after the last requested episode."""
    buffer = RolloutBuffer(capacity=1)
    for t in range(3):
        buffer.write("valid", t, np.ones(2, dtype=bool))
        buffer.steps = t + 1
        buffer["valid"][-1] &= np.array([True, t < 1])
    assert buffer["valid"].tolist() == [[True, True], [True, False], [True, False]]


T, N = 40, 5

Kind = Callable[[int], VectorEnv]  # so many environments


def kind(backend: Literal["gymnasium", "processes", "envpool"], env_id: str, **kwargs: object) -> Kind:
    return lambda n: make_envs(BackendChoice(backend, "test"), env_id, n, dict(kwargs), 2, 60.0, NO_SHAPING)


def gymnasium(name: str, **kwargs: object) -> Kind:
    return kind("gymnasium", name, **kwargs)


MLP = {
    "hidden": [16],
    "activation": "tanh",
    "hidden_gain": 1.0,
    "output_gain": 1.0,
    "log_std_init": 0.0,
    "continuous": "gaussian",
}
POLICY: dict[str, dict[str, object]] = {
    "tabular": {},
    "mlp": MLP,
    "gru": {**MLP, "memory_units": 8, "sequence_length": 8, "burn_in": 0},
}


def normalizer_of(obs: ObsSpec) -> Normalizer:
    if not isinstance(obs, Continuous):
        return Identity()
    normalizer = ObservationNormalizer(obs, 10.0, CPU)
    normalizer.observe(3.0 * torch.randn(100, *obs.shape, generator=torch.Generator().manual_seed(1)))
    return normalizer


def agent_for(envs: VectorEnv, policy: str, seed: int = 0) -> Agent:
    generator = torch.Generator().manual_seed(seed)
    made = POLICIES[policy](**POLICY[policy]).make(envs.obs_spec, envs.action_spec, generator)
    if policy == "tabular":
        with torch.no_grad():  # it starts uniform, like any other
            for table in made.parameters():
                table.normal_(generator=generator)
    return Agent(made, Zero(), normalizer_of(envs.obs_spec))


def collector_for(made: Kind, scaled: bool = False) -> RolloutCollector:
    scaler = RewardScaler(0.9, 10.0) if scaled else None
    return RolloutCollector(made(N), scaler, 3, 0, CPU, Eager())


def collected(made: Kind, policy: str, rollouts: int = 1) -> tuple[list[Rollout], RolloutCollector]:
    collector = collector_for(made, scaled=True)
    agent, runner = agent_for(collector.envs, policy), SyncRunner(collector, T, lag=0)
    return [runner.collect(agent) for _ in range(rollouts)], collector


# --- contents of rollouts ---


def test_observations_follow_their_actions() -> None:
    """Echo observes the number of its episode, its step and the last action."""
    (rollout, following), _ = collected(gymnasium("Echo-v0"), "mlp", rollouts=2)
    assert torch.equal(rollout.obs[1:], rollout.next_obs[:-1])
    assert torch.equal(following.obs[0], rollout.next_obs[-1])
    valid, obs, after = rollout.valid, rollout.obs, rollout.next_obs
    assert torch.equal(after[valid][:, 2:], rollout.action[valid])
    assert torch.equal(after[valid][:, 1], obs[valid][:, 1] + 1)
    assert torch.equal(after[valid][:, 0], obs[valid][:, 0])
    assert torch.equal(obs[valid][:, 1].long(), rollout.time[valid])
    # A reset observes the start of another episode, whatever the action.
    assert int((~valid).sum()) > N
    assert not after[~valid][:, 1:].any() and bool((after[~valid][:, 0] != obs[~valid][:, 0]).all())
    names = obs[..., 0].T
    episodes = [set(column.tolist()) for column in names]
    assert len(set.union(*episodes)) == sum(map(len, episodes))  # no episode is in two columns


@pytest.mark.parametrize("cut", [False, True])
def test_environments_are_counted_separately(cut: bool) -> None:
    """Counter observes k; the step to k + 1 has reward k + 1."""
    collector = collector_for(gymnasium("Counter-v0", cut=cut))
    rollout = SyncRunner(collector, T, lag=0).collect(agent_for(collector.envs, "mlp"))
    valid, now = rollout.valid, rollout.obs[..., 0]
    assert torch.equal(now[valid].long(), rollout.time[valid])
    assert torch.equal(rollout.next_obs[..., 0][valid], now[valid] + 1)
    assert torch.equal(rollout.reward[valid], now[valid] + 1)
    assert (rollout.terminated.any(), rollout.truncated.any()) == (not cut, cut)
    assert torch.equal(~valid[1:], rollout.done[:-1])
    assert len(collector.episodes) == int(rollout.done.sum())
    assert all(e.episode_return == e.length * (e.length + 1) / 2 for e in collector.episodes)


CASES: dict[str, tuple[Kind, str]] = {
    "table": (gymnasium("FrozenLake-v1"), "tabular"),
    "tables": (gymnasium("TwoButtons-v0"), "tabular"),
    "envpool": (kind("envpool", "CartPole-v1"), "mlp"),
    "continuous": (gymnasium("Echo-v0"), "mlp"),
    "masks": (gymnasium("Masked-v0"), "mlp"),
    "masks at times": (gymnasium("Masked-v0", shows="even"), "mlp"),
}


@pytest.mark.parametrize(("made", "policy"), CASES.values(), ids=CASES)
def test_log_probs_are_those_of_the_acting_agent(made: Kind, policy: str) -> None:
    """Also after a change of the agent or of the normalizer."""
    collector = collector_for(made)
    runner = SyncRunner(collector, T, lag=0)
    first, second = (agent_for(collector.envs, policy, seed) for seed in (0, 1))
    for agent in (first, second, first):
        rollout = runner.collect(agent)
        log_prob = agent.policy(rollout_observations(agent, rollout)).log_prob(rollout.action[rollout.valid])
        assert torch.allclose(log_prob, rollout.log_prob[rollout.valid], atol=1e-5)
        agent.normalizer.observe(5.0 + rollout.obs[rollout.valid])


def test_action_noise_is_independent_over_steps_and_environments() -> None:
    """Actions minus mean, divided by the deviation, are independent and standard normal."""
    collector = collector_for(gymnasium("Echo-v0"))
    agent, runner = agent_for(collector.envs, "mlp"), SyncRunner(collector, 200, lag=0)
    noise = []
    for _ in range(2):
        rollout = replace(runner.collect(agent), valid=torch.ones(200, N, dtype=torch.bool))
        mean, log_std = agent.policy(rollout_observations(agent, rollout)).params
        z = (rollout.action.flatten(0, 1) - mean) / log_std.exp()
        noise.append(z.detach().view(200, -1))
    z = torch.cat(noise)  # [400, N * 2]
    assert abs(float(z.mean())) < 5 / z.numel() ** 0.5
    assert abs(float(z.square().mean()) - 1) < 5 * (2 / z.numel()) ** 0.5
    for lag in (1, 2, 200):
        assert ((z[lag:] * z[:-lag]).mean(0).abs() < 5 / (400 - lag) ** 0.5).all()
    across = (z.T @ z / 400).fill_diagonal_(0.0)
    assert bool((across.abs() < 5 / 400**0.5).all())


def test_a_recurrent_policy_begins_each_episode_with_state_zero() -> None:
    (rollout, following), _ = collected(gymnasium("BlindCartPole-v0"), "gru", rollouts=2)
    for part in (rollout, following):
        assert part.recurrent_state is not None
        starts = part.valid & (part.time == 0)
        assert int(starts.sum()) > 3 and not part.recurrent_state[starts].any()
        assert bool(part.recurrent_state[part.valid & (part.time > 0)].any(-1).all())


@pytest.mark.parametrize("cut", [False, True])
def test_a_boundary_resets_running_returns(cut: bool) -> None:
    """The discounted return restarts at 0 after a boundary and after any end of an episode."""
    collector, discount = collector_for(gymnasium("Counter-v0", cut=cut), scaled=True), 0.9
    agent, returns = agent_for(collector.envs, "mlp"), list[float]()
    assert collector.reward_scaler is not None
    for boundary in range(3):
        collector.begin(boundary)
        rollout = collector.collect(agent, 10)
        for n in range(N):
            running = 0.0
            for t in range(10):
                if not rollout.valid[t, n]:
                    running = 0.0
                    continue
                running = discount * running + float(
                    rollout.next_obs[t, n, 0]
                )  # the reward of Counter is its next observation
                returns.append(running)
    state, expected = collector.reward_scaler.state_dict(), torch.tensor(returns, dtype=torch.float64)
    assert int(state["count"]) == len(returns)
    assert torch.allclose(state["mean"], expected.mean())
    assert torch.allclose(state["squares"], (expected - expected.mean()).square().sum())


def test_a_boundary_resets_recurrent_states() -> None:
    collector = collector_for(gymnasium("BlindCartPole-v0"))
    agent = agent_for(collector.envs, "gru")
    for boundary in range(2):
        collector.begin(boundary)
        rollout = collector.collect(agent, 3)
        assert (
            rollout.recurrent_state is not None
            and not rollout.recurrent_state[0].any()
            and rollout.recurrent_state[1].any()
        )


BOTH = {
    "masks": ("tests.environments:Masked-v0", "mlp"),
    "continuous": ("tests.environments:Echo-v0", "mlp"),
    "recurrent": ("tests.environments:BlindCartPole-v0", "gru"),
}


@pytest.mark.parametrize(
    ("env_id", "policy"),
    [
        pytest.param(*BOTH[name], id=name, marks=[] if name == "masks" else pytest.mark.system)
        for name in BOTH
    ],
)
def test_environments_in_worker_processes_give_the_same_rollouts(env_id: str, policy: str) -> None:
    """Bit for bit: worker processes do not mix up steps or environments."""
    whole, here = collected(kind("gymnasium", env_id), policy, rollouts=2)
    parted, there = collected(kind("processes", env_id), policy, rollouts=2)
    there.envs.close()
    for one, two in zip(whole, parted, strict=True):
        assert one.done.any()
        for name, column in vars(one).items():
            other = getattr(two, name)
            assert column is other is None or torch.equal(column, other), name
    assert here.episodes == there.episodes and len(here.episodes) == sum(int(r.done.sum()) for r in whole)


# --- order and number of calls ---


def watched(collector: RolloutCollector, buffer: RolloutBuffer, events: list[tuple[str, int]]) -> None:
    """Record calls of send and receive, and the column and row of each write."""
    send, receive, write = collector.envs.send, collector.envs.receive, buffer.write

    def recorded_send(action: AnyArray) -> None:
        events.append(("send", -1))
        send(action)

    def recorded_receive() -> Step:
        events.append(("receive", -1))
        return receive()

    def recorded_write(name: str, t: int, values: AnyArray) -> None:
        events.append((name, t))
        write(name, t, values)

    collector.envs.send, collector.envs.receive = recorded_send, recorded_receive  # type: ignore[method-assign]
    buffer.write = recorded_write  # type: ignore[method-assign]


def test_results_are_stored_while_environments_step() -> None:
    """Actions are stored during their step, its results during the next step."""
    collector, buffer, events = (
        collector_for(gymnasium("Masked-v0")),
        RolloutBuffer(T + 1),
        list[tuple[str, int]](),
    )
    agent = agent_for(collector.envs, "mlp")
    collector.begin(0)
    watched(collector, buffer, events)
    collector.advance(agent, buffer, T)
    drawn, led_to = (
        {"time", "valid", "action", "log_prob", "action_mask"},
        {"reward", "terminated", "truncated", "obs"},
    )
    moving, step, noted = False, -1, Counter[str]()
    for what, row in events[1:]:  # except the first event, the initial observation
        if what in ("send", "receive"):
            assert moving == (what == "receive")
            moving, step = not moving, step + (what == "send")
        else:
            noted[what] += 1
            assert moving or step == T - 1, what
            assert row == step - (what in led_to and moving) + (what == "obs"), what
    assert noted == dict.fromkeys(drawn | led_to, T)


@pytest.mark.parametrize("capacity", [1, T + 1])
def test_each_row_is_copied_once(capacity: int) -> None:
    collector, buffer, events = (
        collector_for(gymnasium("Masked-v0")),
        RolloutBuffer(capacity),
        list[tuple[str, int]](),
    )
    agent = agent_for(collector.envs, "mlp")
    collector.begin(0)
    watched(collector, buffer, events)
    collector.advance(agent, buffer, T - 7)
    collector.advance(agent, buffer, 7)
    seen, acted = {"obs", "time", "valid", "action_mask"}, {"action", "log_prob"}
    columns = seen | acted | {"reward", "terminated", "truncated"}
    rows = {(name, t) for name in columns for t in range(T + (name == "obs"))}
    written = Counter((what, t) for what, t in events if what not in ("send", "receive"))
    assert set(written) == rows and set(written.values()) == {1}


def test_the_policy_is_evaluated_once_per_step() -> None:
    """Except for one evaluation at the start, which finds the shape of the noise."""
    collector = collector_for(gymnasium("Echo-v0"))
    agent, rows = agent_for(collector.envs, "mlp"), list[int]()
    assert isinstance(agent.policy, torch.nn.Module)
    agent.policy.register_forward_hook(lambda module, given, result: rows.append(len(given[0])))
    runner = SyncRunner(collector, T, lag=0)
    for rollout in range(3):
        runner.collect(agent)
        assert rows == [N] * ((rollout == 0) + T)
        rows.clear()
