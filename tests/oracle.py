"""Exact oracle: finite MDPs whose values and gradients are computed by linear algebra.

Shapes: a policy is `pi` [S, A], rows summing to one; logits are `theta` [S, A]; all is float64. Every
function of `pi` is differentiable, so that a closed form can be compared with autograd through the same
equations. Terminal states have value 0 and are never counted as visited.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

# --- decision processes ---


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """Finite MDP whose reward is a function of (s, a)."""

    name: str
    transition: Tensor  # [S, A, S], P(s' | s, a)
    reward: Tensor  # [S, A]
    start: Tensor  # [S], the distribution of s_0
    terminal: Tensor  # bool [S]; entering one ends the episode
    horizon: int | None = None  # time limit of the environment; the functions here do not read it

    def __post_init__(self) -> None:
        absorbing = torch.eye(self.states, dtype=torch.float64)[:, None].expand(-1, self.actions, -1)
        ones = torch.ones(self.states, self.actions, dtype=torch.float64)
        assert (self.transition >= 0).all() and torch.allclose(self.transition.sum(-1), ones), "P is no law"
        assert torch.allclose(self.start.sum(), ones[0, 0]) and not self.start[self.terminal].any(), "start"
        assert torch.equal(self.transition[self.terminal], absorbing[self.terminal]), "terminal: absorbing"
        assert not self.reward[self.terminal].any(), "terminal: reward 0"

    @property
    def states(self) -> int:
        return self.reward.shape[0]

    @property
    def actions(self) -> int:
        return self.reward.shape[1]


def chain(n: int = 5, slip: float = 0.1, step_reward: float = -0.1, horizon: int | None = 30) -> TabularMDP:
    """Return a chain of n states from the left end to the terminal right end (+1); P(opposite step) = slip."""
    transition = torch.zeros(n, 2, n, dtype=torch.float64)
    for state in range(n - 1):
        for action in (0, 1):
            transition[state, action, max(state - 1, 0)] += slip if action == 1 else 1 - slip
            transition[state, action, state + 1] += slip if action == 0 else 1 - slip
    prizes = torch.zeros(n, dtype=torch.float64)
    prizes[n - 1] = 1.0
    return _with_terminals(f"chain-{n}", transition, prizes, step_reward, terminal=[n - 1], horizon=horizon)


def gridworld(
    rows: int = 4,
    cols: int = 4,
    slip: float = 0.2,
    step_reward: float = -0.04,
    pits: tuple[tuple[int, int], ...] = ((1, 1),),
    horizon: int | None = 50,
) -> TabularMDP:
    """Return a gridworld from one corner to the goal (+1) in the other, with pits (-1); P(sideways move) = slip.

    Actions are up, right, down, left; a move off the grid stays where it is.
    """
    states, moves = rows * cols, ((-1, 0), (0, 1), (1, 0), (0, -1))
    transition = torch.zeros(states, 4, states, dtype=torch.float64)
    for row in range(rows):
        for col in range(cols):
            for action in range(4):
                for turn, chance in ((0, 1 - slip), (1, slip / 2), (-1, slip / 2)):
                    down, right = moves[(action + turn) % 4]
                    to_row, to_col = row + down, col + right
                    if not (0 <= to_row < rows and 0 <= to_col < cols):
                        to_row, to_col = row, col
                    transition[row * cols + col, action, to_row * cols + to_col] += chance
    prizes = torch.zeros(states, dtype=torch.float64)
    prizes[-1] = 1.0
    fall = [row * cols + col for row, col in pits]
    prizes[fall] = -1.0
    terminal = [states - 1, *fall]
    return _with_terminals(f"gridworld-{rows}x{cols}", transition, prizes, step_reward, terminal, horizon)


def random_mdp(states: int, actions: int, seed: int) -> TabularMDP:
    """Return an MDP with dense random transitions and start, standard normal rewards, and no terminal states."""
    generator = torch.Generator().manual_seed(seed)
    transition = torch.rand(states, actions, states, generator=generator, dtype=torch.float64)
    start = torch.rand(states, generator=generator, dtype=torch.float64)
    return TabularMDP(
        name=f"random-{states}x{actions}-{seed}",
        transition=transition / transition.sum(-1, keepdim=True),
        reward=torch.randn(states, actions, generator=generator, dtype=torch.float64),
        start=start / start.sum(),
        terminal=torch.zeros(states, dtype=torch.bool),
    )


def _with_terminals(
    name: str,
    transition: Tensor,
    prizes: Tensor,
    step_reward: float,
    terminal: list[int],
    horizon: int | None,
) -> TabularMDP:
    """Return an MDP that starts in state 0: R(s, a) = step_reward + E[prize of s']; terminal states absorb."""
    ended = torch.zeros(len(prizes), dtype=torch.bool)
    ended[terminal] = True
    reward = step_reward + transition @ prizes
    reward[ended] = 0.0
    transition[ended] = torch.eye(len(prizes), dtype=torch.float64)[ended, None]
    start = torch.zeros(len(prizes), dtype=torch.float64)
    start[0] = 1.0
    return TabularMDP(name, transition, reward, start, ended, horizon)


# --- policies without a time limit ---


def softmax_policy(theta: Tensor) -> Tensor:
    """Return pi(a|s) = exp theta(s, a) / sum_b exp theta(s, b)."""
    return theta.softmax(-1)


def state_values(mdp: TabularMDP, pi: Tensor, discount: float) -> Tensor:
    """Return V [S] = (I - discount P_pi)^-1 r_pi; discount 1 requires a policy that always terminates."""
    return torch.linalg.solve(_resolvent(mdp, pi, discount), (pi * mdp.reward).sum(-1))


def action_values(mdp: TabularMDP, pi: Tensor, discount: float) -> Tensor:
    """Return Q [S, A] = R(s, a) + discount E[V(s')]."""
    return mdp.reward + discount * mdp.transition @ state_values(mdp, pi, discount)


def advantages(mdp: TabularMDP, pi: Tensor, discount: float) -> Tensor:
    """Return A [S, A] = Q(s, a) - V(s)."""
    return action_values(mdp, pi, discount) - state_values(mdp, pi, discount)[:, None]


def visitation(mdp: TabularMDP, pi: Tensor, discount: float) -> Tensor:
    """Return d [S] = sum_t discount^t P(s_t = s), not normalized."""
    return torch.linalg.solve(_resolvent(mdp, pi, discount).T, mdp.start)


def objective(mdp: TabularMDP, pi: Tensor, discount: float) -> Tensor:
    """Return J = E[V(s_0)]."""
    return mdp.start @ state_values(mdp, pi, discount)


def policy_gradient(mdp: TabularMDP, theta: Tensor, discount: float) -> Tensor:
    """Return dJ / dtheta(s, a) = d(s) pi(a|s) A(s, a), the policy gradient theorem."""
    pi = softmax_policy(theta)
    return visitation(mdp, pi, discount)[:, None] * pi * advantages(mdp, pi, discount)


def fisher(mdp: TabularMDP, theta: Tensor, weights: Tensor) -> Tensor:
    """Return F [SA, SA], one block w(s) (diag pi_s - pi_s pi_s^T) for every state; w = 0 at terminal states."""
    pi = softmax_policy(theta)
    blocks = torch.diag_embed(pi) - pi[:, :, None] * pi[:, None, :]
    places = torch.diag(weights * ~mdp.terminal)
    return torch.einsum("sab,st->satb", blocks, places).reshape(theta.numel(), theta.numel())


def _live_transition(mdp: TabularMDP, pi: Tensor) -> Tensor:
    """Return P_pi [S, S] among non-terminal states: an absorbing 1 would be singular with discount 1."""
    live = (~mdp.terminal).to(pi.dtype)
    return torch.einsum("sa,sat->st", pi, mdp.transition) * live[:, None] * live


def _resolvent(mdp: TabularMDP, pi: Tensor, discount: float) -> Tensor:
    return torch.eye(mdp.states, dtype=pi.dtype) - discount * _live_transition(mdp, pi)


# --- policies under a time limit ---


def finite_horizon_values(
    mdp: TabularMDP, pi: Tensor, horizon: int, discount: float
) -> tuple[Tensor, Tensor]:
    """Return V [horizon + 1, S], Q [horizon, S, A]: Q_t = R + discount P V_{t+1}, V_t = E_pi[Q_t], V_horizon = 0."""
    values, actions = [torch.zeros(mdp.states, dtype=pi.dtype)], []
    for _ in range(horizon):
        actions.append(mdp.reward + discount * mdp.transition @ values[-1])
        values.append((pi * actions[-1]).sum(-1))
    return torch.stack(values[::-1]), torch.stack(actions[::-1])


def finite_horizon_visitation(mdp: TabularMDP, pi: Tensor, horizon: int, discount: float) -> Tensor:
    """Return d [horizon, S] = discount^t P(s_t = s)."""
    step, visits = discount * _live_transition(mdp, pi), [mdp.start]
    for _ in range(horizon - 1):
        visits.append(visits[-1] @ step)
    return torch.stack(visits)


def finite_horizon_objective(mdp: TabularMDP, pi: Tensor, horizon: int, discount: float) -> Tensor:
    """Return J = E[sum_{t < horizon} discount^t r_t]."""
    values, _ = finite_horizon_values(mdp, pi, horizon, discount)
    return mdp.start @ values[0]


def finite_horizon_gradient(mdp: TabularMDP, theta: Tensor, horizon: int, discount: float) -> Tensor:
    """Return dJ / dtheta(s, a) = sum_t d_t(s) pi(a|s) (Q_t(s, a) - V_t(s)) of a pi that does not depend on time."""
    pi = softmax_policy(theta)
    values, actions = finite_horizon_values(mdp, pi, horizon, discount)
    visits = finite_horizon_visitation(mdp, pi, horizon, discount)
    return (visits[:, :, None] * pi * (actions - values[:-1, :, None])).sum(0)


# --- optima ---


def optimal_policy(mdp: TabularMDP, discount: float) -> Tensor:
    """Return a deterministic pi* [S, A] by policy iteration."""
    pi = torch.full((mdp.states, mdp.actions), 1 / mdp.actions, dtype=torch.float64)
    for _ in range(1000):
        values, actions = state_values(mdp, pi, discount), action_values(mdp, pi, discount)
        greedy = torch.nn.functional.one_hot(actions.argmax(-1), mdp.actions).to(pi.dtype)
        # Actions change only for a real gain: ties that rounding breaks could alternate forever.
        gains = actions.amax(-1) > values + 1e-12
        if not gains.any():
            return greedy
        pi = torch.where(gains[:, None], greedy, pi)
    raise ArithmeticError(f"policy iteration on {mdp.name} does not settle")


def optimal_value(mdp: TabularMDP, discount: float) -> Tensor:
    """Return V* [S]; the best objective is mdp.start @ V*."""
    return state_values(mdp, optimal_policy(mdp, discount), discount)


def finite_horizon_optimum(mdp: TabularMDP, horizon: int, discount: float) -> tuple[Tensor, Tensor]:
    """Return V* [horizon + 1, S] and the time-dependent optimal policy pi* [horizon, S, A]."""
    values, policies = [torch.zeros(mdp.states, dtype=torch.float64)], []
    for _ in range(horizon):
        actions = mdp.reward + discount * mdp.transition @ values[-1]
        values.append(actions.amax(-1))
        policies.append(torch.nn.functional.one_hot(actions.argmax(-1), mdp.actions).to(values[0].dtype))
    return torch.stack(values[::-1]), torch.stack(policies[::-1])


# --- samples ---


@torch.no_grad()
def simulate(
    mdp: TabularMDP, pi: Tensor, episodes: int, max_steps: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Simulate one episode in each column of [max_steps, episodes]; rows after its end are not `valid`.

    Those rows have action 0, reward 0, log_prob 0 and the terminal state.
    """
    start, policy, transition = _cumulative(mdp.start), _cumulative(pi), _cumulative(mdp.transition)
    state = _draw(start[None].repeat(episodes, 1), generator)
    valid = torch.ones(episodes, dtype=torch.bool)
    rows: list[dict[str, Tensor]] = []
    for time in range(max_steps):
        action = _draw(policy[state], generator) * valid
        following = _draw(transition[state, action], generator)
        terminated = valid & mdp.terminal[following]
        rows.append(
            {
                "obs": state,
                "action": action,
                "reward": mdp.reward[state, action],
                "next_obs": following,
                "terminated": terminated,
                "truncated": valid & ~terminated & (time == max_steps - 1),
                "valid": valid,
                "time": torch.full((episodes,), time),
                "log_prob": torch.where(valid, pi[state, action].log(), 0.0),
            }
        )
        state, valid = following, valid & ~terminated
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


def _cumulative(probabilities: Tensor) -> Tensor:
    """Return the cumulative distribution of each row, which ends in exactly 1 so that each draw has an index."""
    sums = probabilities.cumsum(-1)
    return sums / sums[..., -1:]


def _draw(cumulative: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one index per row: the first whose cumulative probability exceeds a uniform draw, so P > 0."""
    uniform = torch.rand(len(cumulative), 1, generator=generator, dtype=cumulative.dtype)
    return torch.searchsorted(cumulative, uniform, right=True).squeeze(-1)


# --- environments ---


class TabularEnv(gymnasium.Env[Any, Any]):
    """Environment of a TabularMDP; Gymnasium's TimeLimit applies the horizon."""

    def __init__(self, mdp: TabularMDP) -> None:
        self.mdp = mdp
        self.observation_space = spaces.Discrete(mdp.states)
        self.action_space = spaces.Discrete(mdp.actions)
        self._start = _cumulative(mdp.start).numpy()
        self._transition = _cumulative(mdp.transition).numpy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = int(np.searchsorted(self._start, self.np_random.random(), side="right"))
        return self.state, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        reward = float(self.mdp.reward[self.state, action])
        law = self._transition[self.state, action]
        self.state = int(np.searchsorted(law, self.np_random.random(), side="right"))
        return self.state, reward, bool(self.mdp.terminal[self.state]), False, {}


class GridworldEnv(TabularEnv):
    """Environment of gridworld() with its defaults."""

    def __init__(self) -> None:
        super().__init__(gridworld())


class ChainEnv(TabularEnv):
    """Environment of chain() with its defaults."""

    def __init__(self) -> None:
        super().__init__(chain())


for env_id, kind, limit in (
    ("Gridworld-v0", GridworldEnv, gridworld().horizon),
    ("Chain-v0", ChainEnv, chain().horizon),
):
    if env_id not in gymnasium.registry:
        gymnasium.register(env_id, kind, max_episode_steps=limit)
