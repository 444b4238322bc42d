"""Lanes in turn: what is recorded is what one lane of all environments would have given, and what happened there."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch

import tests.environments  # noqa: F401, registers ids
from pgx.engines import Eager
from pgx.envs.envpool_backend import EnvPoolVector
from pgx.envs.gymnasium_backend import GymnasiumVector
from pgx.envs.lanes import Lanes
from pgx.envs.normalizers import Identity, ObservationNormalizer, RewardScaler
from pgx.envs.vector import Array, Step, VectorEnv
from pgx.estimates import observations
from pgx.policies import POLICIES
from pgx.policies.constant import Zero
from pgx.runners.episodes import EpisodeRunner
from pgx.runners.recording import Recording
from pgx.runners.stepper import Stepper
from pgx.runners.sync import SyncRunner
from pgx.types import Agent, Continuous, Normalizer, ObsSpec, Rollout

CPU = torch.device("cpu")
T, N = 40, 5

Kind = Callable[[int], VectorEnv]  # so many environments


def gymnasium(env_id: str, **kwargs: object) -> Kind:
    return lambda n: GymnasiumVector(env_id, n, kwargs)


def envpool(env_id: str) -> Kind:
    return lambda n: EnvPoolVector(env_id, n, {}, 1)


def in_lanes(kind: Kind, sizes: list[int]) -> VectorEnv:
    return kind(sizes[0]) if len(sizes) == 1 else Lanes([kind(size) for size in sizes])


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
    normalizer = ObservationNormalizer(obs.shape, 10.0, CPU)
    normalizer.observe(3.0 * torch.randn(100, *obs.shape, generator=torch.Generator().manual_seed(1)))
    return normalizer


def agent_for(envs: VectorEnv, policy: str, seed: int = 0) -> Agent:
    generator = torch.Generator().manual_seed(seed)
    made = POLICIES[policy](envs.obs_spec, envs.action_spec, generator, **POLICY[policy])
    if policy == "tabular":
        with torch.no_grad():  # it starts uniform, and so as any other
            for table in made.parameters():
                table.normal_(generator=generator)
    return Agent(made, Zero(), normalizer_of(envs.obs_spec))


def stepper_of(kind: Kind, sizes: list[int], scaled: bool = False) -> Stepper:
    scaler = RewardScaler(0.9, 10.0) if scaled else None
    return Stepper(in_lanes(kind, sizes), scaler, 3, CPU, Eager())


def collected(kind: Kind, sizes: list[int], policy: str, rollouts: int = 1) -> tuple[list[Rollout], Stepper]:
    stepper = stepper_of(kind, sizes, scaled=True)
    agent, runner = agent_for(stepper.envs, policy), SyncRunner(stepper, T, lag=0)
    return [runner.collect(agent) for _ in range(rollouts)], stepper


# --- however the environments are parted ---

# Rows of a table are the same numbers whatever stands beside them; a matrix product's differ in the last bit.
CASES: dict[str, tuple[Kind, str, bool]] = {
    "table": (gymnasium("FrozenLake-v1"), "tabular", True),
    "tables": (gymnasium("TwoButtons-v0"), "tabular", True),
    "envpool": (envpool("CartPole-v1"), "mlp", False),
    "continuous": (gymnasium("Echo-v0"), "mlp", False),
    "masks": (gymnasium("Masked-v0"), "mlp", False),
    "masks at times": (gymnasium("Masked-v0", shows="even"), "mlp", False),
    "memory": (gymnasium("BlindCartPole-v0"), "gru", False),
}
cases = pytest.mark.parametrize(("kind", "policy", "exact"), CASES.values(), ids=CASES)
lanes = pytest.mark.parametrize("sizes", [[3, 2], [2, 3], [1, 1, 3]], ids=str)


def assert_alike(one: Rollout, two: Rollout, exact: bool) -> None:
    for name, column in vars(one).items():
        other = getattr(two, name)
        assert (column is None) == (other is None), name
        if column is None:
            continue
        assert column.dtype == other.dtype, name
        if exact or not column.is_floating_point():
            assert torch.equal(column, other), name
        else:
            assert torch.allclose(column, other, rtol=1e-4, atol=1e-4), name


@cases
@lanes
def test_lanes_give_the_rollouts_of_one_lane(kind: Kind, policy: str, exact: bool, sizes: list[int]) -> None:
    whole, single = collected(kind, [N], policy, rollouts=2)
    parted, several = collected(kind, sizes, policy, rollouts=2)
    for one, two in zip(whole, parted, strict=True):
        assert one.done.any()
        assert_alike(one, two, exact)
    returns = [Counter((round(e.episode_return, 2), e.length) for e in s.episodes) for s in (single, several)]
    assert returns[0] == returns[1] and len(single.episodes) == sum(int(r.done.sum()) for r in whole)
    assert torch.equal(single.state_dict()["sampling"], several.state_dict()["sampling"])


@lanes
@pytest.mark.parametrize("share", [1, 2])
def test_lanes_give_the_same_whole_episodes(sizes: list[int], share: int) -> None:
    found = []
    for parts in ([N], sizes):
        stepper = stepper_of(gymnasium("Masked-v0"), parts)
        runner = EpisodeRunner(stepper, share)
        agent = agent_for(stepper.envs, "mlp")
        found.append(([runner.collect(agent) for _ in range(2)], runner.episodes))
    (whole, one), (parted, two) = found
    for a, b in zip(whole, parted, strict=True):
        assert_alike(a, b, exact=False)
    assert one == two and len(one) == 2 * share * N


# --- what happened is what was recorded ---


@lanes
def test_every_observation_is_what_the_environment_showed_after_the_action_before(sizes: list[int]) -> None:
    """Echo shows which episode it is in, its step and the action that it was given."""
    (rollout, following), _ = collected(gymnasium("Echo-v0"), sizes, "mlp", rollouts=2)
    assert torch.equal(rollout.obs[1:], rollout.next_obs[:-1])
    assert torch.equal(following.obs[0], rollout.next_obs[-1])
    valid, obs, after = rollout.valid, rollout.obs, rollout.next_obs
    assert torch.equal(after[valid][:, 2:], rollout.action[valid])
    assert torch.equal(after[valid][:, 1], obs[valid][:, 1] + 1)
    assert torch.equal(after[valid][:, 0], obs[valid][:, 0])
    assert torch.equal(obs[valid][:, 1].long(), rollout.time[valid])
    # A reset shows the start of another episode, whatever action was drawn for it.
    assert int((~valid).sum()) > N
    assert not after[~valid][:, 1:].any() and bool((after[~valid][:, 0] != obs[~valid][:, 0]).all())
    names = obs[..., 0].T
    shown = [set(column.tolist()) for column in names]
    assert len(set.union(*shown)) == sum(map(len, shown))  # no episode is in two columns


@pytest.mark.parametrize("cut", [False, True])
@lanes
def test_lanes_count_each_environment_by_itself(sizes: list[int], cut: bool) -> None:
    """Counter shows k and pays k + 1 for the step to k + 1."""
    stepper = stepper_of(gymnasium("Counter-v0", cut=cut), sizes)
    rollout = SyncRunner(stepper, T, lag=0).collect(agent_for(stepper.envs, "mlp"))
    valid, now = rollout.valid, rollout.obs[..., 0]
    assert torch.equal(now[valid].long(), rollout.time[valid])
    assert torch.equal(rollout.next_obs[..., 0][valid], now[valid] + 1)
    assert torch.equal(rollout.reward[valid], now[valid] + 1)
    assert (rollout.terminated.any(), rollout.truncated.any()) == (not cut, cut)
    assert torch.equal(~valid[1:], rollout.done[:-1])
    assert len(stepper.episodes) == int(rollout.done.sum())
    assert all(e.episode_return == e.length * (e.length + 1) / 2 for e in stepper.episodes)


@pytest.mark.parametrize("kind", [gymnasium("Echo-v0"), gymnasium("Masked-v0")], ids=["continuous", "masks"])
def test_recorded_log_probs_are_of_the_agent_that_acted(kind: Kind) -> None:
    """Also of another agent than the one before, and after a normaliser has moved."""
    stepper = stepper_of(kind, [3, 2])
    runner = SyncRunner(stepper, T, lag=0)
    first, second = (agent_for(stepper.envs, "mlp", seed) for seed in (0, 1))
    for agent in (first, second, first):
        rollout = runner.collect(agent)
        log_prob = agent.policy(observations(agent, rollout)).log_prob(rollout.action[rollout.valid])
        assert torch.allclose(log_prob, rollout.log_prob[rollout.valid], atol=1e-5)
        agent.normalizer.observe(5.0 + rollout.obs[rollout.valid])


def test_chance_is_new_at_every_step_of_every_environment() -> None:
    """What remains of actions without mean and deviation: standard normal, and no two of it depend on each other."""
    stepper = stepper_of(gymnasium("Echo-v0"), [3, 2])
    agent, runner = agent_for(stepper.envs, "mlp"), SyncRunner(stepper, 200, lag=0)
    noise = []
    for _ in range(2):
        rollout = replace(runner.collect(agent), valid=torch.ones(200, N, dtype=torch.bool))
        mean, log_std = agent.policy(observations(agent, rollout)).coordinates
        z = (rollout.action.flatten(0, 1) - mean) / log_std.exp()
        noise.append(z.detach().view(200, -1))
    z = torch.cat(noise)  # [400, N * 2]
    assert abs(float(z.mean())) < 5 / z.numel() ** 0.5
    assert abs(float(z.square().mean()) - 1) < 5 * (2 / z.numel()) ** 0.5
    for lag in (1, 2, 200):
        assert ((z[lag:] * z[:-lag]).mean(0).abs() < 5 / (400 - lag) ** 0.5).all()
    across = (z.T @ z / 400).fill_diagonal_(0.0)
    assert bool((across.abs() < 5 / 400**0.5).all())


def test_a_policy_with_memory_begins_each_episode_without_any() -> None:
    (rollout, following), _ = collected(gymnasium("BlindCartPole-v0"), [3, 2], "gru", rollouts=2)
    for part in (rollout, following):
        assert part.memory is not None
        starts = part.valid & (part.time == 0)
        assert int(starts.sum()) > 3 and not part.memory[starts].any()
        assert bool(part.memory[part.valid & (part.time > 0)].any(-1).all())


# --- the order of things, and how often ---


def noted(envs: VectorEnv, events: list[tuple[str, int]]) -> None:
    """Have the lanes of these environments note when they are sent actions and when they are waited for."""

    def send(i: int, inner: Callable[[Array], None], action: Array) -> None:
        events.append(("send", i))
        inner(action)

    def receive(i: int, inner: Callable[[], Step]) -> Step:
        events.append(("receive", i))
        return inner()

    for i, lane in enumerate(envs.lanes):
        lane.send, lane.receive = partial(send, i, lane.send), partial(receive, i, lane.receive)  # type: ignore[method-assign]


@pytest.mark.parametrize("sizes", [[N], [3, 2], [2, 2, 1]], ids=str)
def test_while_a_lane_is_given_its_actions_all_others_move(sizes: list[int]) -> None:
    stepper, events = stepper_of(gymnasium("Echo-v0"), sizes), list[tuple[str, int]]()
    noted(stepper.envs, events)
    stepper.begin(0)
    stepper.advance(agent_for(stepper.envs, "mlp"), Recording(N, room=T + 1), T)
    moving: set[int] = set()
    for k, (what, lane) in enumerate(events):
        if what == "send":
            assert lane not in moving
            assert k < len(sizes) or moving == set(range(len(sizes))) - {lane}
            moving.add(lane)
        else:
            moving.remove(lane)
    assert not moving and Counter(events) == {
        (w, i): T for w in ("send", "receive") for i in range(len(sizes))
    }


@pytest.mark.parametrize("sizes", [[N], [3, 2], [2, 2, 1]], ids=str)
def test_the_policy_is_asked_once_a_step_and_lane(sizes: list[int]) -> None:
    """But for the very first question: what shape its noise has."""
    stepper = stepper_of(gymnasium("Echo-v0"), sizes)
    agent, asked = agent_for(stepper.envs, "mlp"), list[int]()
    assert isinstance(agent.policy, torch.nn.Module)
    agent.policy.register_forward_hook(lambda module, given, result: asked.append(len(given[0])))
    runner = SyncRunner(stepper, T, lag=0)
    for rollout in range(3):
        runner.collect(agent)
        assert asked == [N] * (rollout == 0) + sizes * T
        asked.clear()


@pytest.mark.parametrize("sizes", [[N], [3, 2], [2, 2, 1]], ids=str)
def test_each_row_is_copied_once(sizes: list[int]) -> None:
    stepper = stepper_of(gymnasium("Masked-v0"), sizes)
    agent = agent_for(stepper.envs, "mlp")
    stepper.begin(0)
    for room in (T + 1, 1):
        recording, written = Recording(N, room), Counter[tuple[str, int, int]]()
        inner = recording.write

        def write(
            name: str,
            t: int,
            lane: slice,
            values: Array,
            written: Counter[tuple[str, int, int]] = written,
            inner: Callable[[str, int, slice, Array], None] = inner,
        ) -> None:
            written.update((name, t, n) for n in range(lane.start, lane.stop))
            inner(name, t, lane, values)

        recording.write = write  # type: ignore[method-assign]
        stepper.advance(agent, recording, T - 7)
        stepper.advance(agent, recording, 7)
        seen, acted = {"obs", "time", "valid", "action_mask"}, {"action", "log_prob"}
        columns = seen | acted | {"reward", "terminated", "truncated"}
        rows = {(name, t, n) for name in columns for t in range(T + (name == "obs")) for n in range(N)}
        assert set(written) == rows and set(written.values()) == {1}
