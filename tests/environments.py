"""Environments for tests, registered with Gymnasium."""

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Endless(gymnasium.Env[Any, Any]):
    """Chain without an end and a reward of 1 per step: the value of every state is 1 / (1 - discount)."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), 1.0, False, False, {}


class Counter(gymnasium.Env[Any, Any]):
    """Environment whose observation is its step count; terminates (or truncates, with `cut`) at a random step."""

    observation_space = spaces.Box(-1e6, 1e6, (1,), np.float32)
    action_space = spaces.Box(-0.5, 2.0, (2,), np.float32)

    def __init__(self, cut: bool = False) -> None:
        self.cut = cut

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.last = 0, int(self.np_random.integers(3, 9))
        return np.array([0.0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.count += 1
        done = self.count == self.last
        return (
            np.array([self.count], np.float32),
            float(self.count),
            done and not self.cut,
            done and self.cut,
            {},
        )


class CoinFlip(gymnasium.Env[Any, Any]):
    """Environment with constant observations, a reward of 1 per step, and random episode lengths of 1 or `long`."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, long: int = 60) -> None:
        self.long = long

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.choice([1, self.long]))
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.zeros(1, np.float32), 1.0, self.left == 0, False, {}


class Echo(gymnasium.Env[Any, Any]):
    """Environment that observes (id of the episode, step, last action); the reward is the action's first component."""

    observation_space = spaces.Box(-1e6, 1e6, (4,), np.float32)
    action_space = spaces.Box(-100.0, 100.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.name, self.count = float(self.np_random.integers(2**20)), 0
        self.last = int(self.np_random.integers(3, 9))
        return self._show(np.zeros(2)), {}

    def _show(self, action: Any) -> Any:
        return np.array([self.name, self.count, *action], np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self._show(action), float(action[0]), self.count == self.last, False, {}


class TwoButtons(gymnasium.Env[Any, Any]):
    """MultiDiscrete task: the first component must equal the observed digit; the second has no effect."""

    observation_space = spaces.Discrete(3, start=5)
    action_space = spaces.MultiDiscrete([3, 2])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._show(), {}

    def _show(self) -> int:
        self.digit = int(self.np_random.integers(3))
        return self.digit + 5

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        reward = float(action[0] == self.digit)
        self.count += 1
        return self._show(), reward, self.count == 10, False, {}


class Gifted(Endless):
    """Environment with a keyword of any type."""

    def __init__(self, goal: Any = None) -> None:
        self.goal = goal


class Unmakeable(gymnasium.Env[Any, Any]):
    """Environment whose constructor raises, for configs that must be refused before it is created."""

    def __init__(self) -> None:
        raise RuntimeError("Unmakeable was made")


class Catch(gymnasium.Env[Any, Any]):
    """Image task: move a paddle of three fields (left, stay, right) under a ball that falls down a 12 x 12 board.

    The reward is +1 for a catch and -1 for a miss. A field has 3 x 3 pixels; the ball is red, the paddle green.
    """

    action_space = spaces.Discrete(3)

    def __init__(self, channels_first: bool = False) -> None:
        self.channels_first = channels_first
        self.observation_space = spaces.Box(0, 255, (3, 36, 36) if channels_first else (36, 36, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.row, self.column, self.paddle = 0, int(self.np_random.integers(12)), 5
        return self._draw(), {}

    def _draw(self) -> Any:
        board = np.zeros((12, 12, 3), np.uint8)
        board[11, self.paddle - 1 : self.paddle + 2, 1] = 255
        board[self.row, self.column, 0] = 255
        image = board.repeat(3, 0).repeat(3, 1)
        return image.transpose(2, 0, 1).copy() if self.channels_first else image

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.paddle = min(max(self.paddle + int(action) - 1, 1), 10)
        self.row += 1
        landed = self.row == 11
        reward = (1.0 if abs(self.column - self.paddle) <= 1 else -1.0) if landed else 0.0
        return self._draw(), reward, landed, False, {}


class Masked(gymnasium.Env[Any, Any]):
    """Environment with action masks that depend on its observation (step, phase); it raises at forbidden actions.

    Masks of consecutive steps and of consecutive episodes differ. After an end, the mask forbids all actions.

    Args:
        several: whether actions have two components, of 3 and 4 choices; else one of 5.
        cut: whether episodes are truncated; else they terminate.
        shows: whether the mask is returned "always", at "even" steps only (odd ones allow all actions), too "short",
            with "nothing" allowed at step 2, or as a "tuple" of masks.
    """

    observation_space = spaces.Box(0.0, 100.0, (2,), np.float32)

    def __init__(self, several: bool = False, cut: bool = False, shows: str = "always") -> None:
        self.sizes = [3, 4] if several else [5]
        self.several, self.cut, self.shows = several, cut, shows
        self.action_space = spaces.MultiDiscrete(self.sizes) if several else spaces.Discrete(5)
        self.episode = 0

    @staticmethod
    def allowed(step: int, phase: int, sizes: list[int]) -> list[Any]:
        """Allow in each component of n choices (step + phase) mod n and (step + phase + 2) mod n."""
        return [np.isin(np.arange(n), [(step + phase) % n, (step + phase + 2) % n]) for n in sizes]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.last = 0, int(self.np_random.integers(3, 9))
        self.episode += 1
        self.phase = 7 * self.episode  # coprime to all sizes
        return self._show(), self._info(ended=False)

    def _show(self) -> Any:
        return np.array([self.count, self.phase % 60], np.float32)

    def _masks(self) -> list[Any]:
        if self.shows == "even" and self.count % 2:
            return [np.ones(n, bool) for n in self.sizes]
        return self.allowed(self.count, self.phase % 60, self.sizes)

    def _info(self, ended: bool) -> dict[str, Any]:
        if self.shows == "even" and self.count % 2:
            return {}
        if self.shows == "tuple":
            return {"action_mask": tuple(self._masks())}
        mask = np.concatenate(self._masks()).astype(np.int8)
        if ended or (self.shows == "nothing" and self.count == 2):
            mask = np.zeros_like(mask)
        return {"action_mask": mask[1:] if self.shows == "short" else mask}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        chosen = action if self.several else [action]
        for mask, a in zip(self._masks(), chosen, strict=True):
            assert mask[a], f"action {action} is not allowed at step {self.count}"
        reward = float(np.sum(chosen))
        self.count += 1
        done = self.count == self.last
        return self._show(), reward, done and not self.cut, done and self.cut, self._info(done)


class Recall(gymnasium.Env[Any, Any]):
    """Memory task: the first observation is -1 or 1, the next `blanks` are 0, and the last action must name the first.

    The reward of the last step is 1 if it does, else -1; a policy without memory gets 0 on average.
    """

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, blanks: int = 6) -> None:
        self.blanks = blanks

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.bit, self.count = int(self.np_random.integers(2)), 0
        return np.array([2.0 * self.bit - 1.0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        last = self.count > self.blanks
        reward = 0.0 if not last else 1.0 if action == self.bit else -1.0
        return np.zeros(1, np.float32), reward, last, False, {}


def blind_cartpole(**kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Return CartPole with observations without velocities."""
    shown, env = [0, 2], gymnasium.make("CartPole-v1", **kwargs)
    box = env.observation_space
    assert isinstance(box, spaces.Box)
    space = spaces.Box(box.low[shown], box.high[shown], dtype=np.float32)
    return gymnasium.wrappers.TransformObservation(env, lambda obs: obs[shown], space)


def paid_cartpole(pay: float) -> gymnasium.Env[Any, Any]:
    """Return CartPole with a reward of `pay` per step."""
    return gymnasium.wrappers.TransformReward(
        gymnasium.make("CartPole-v1"), lambda reward: pay * float(reward)
    )


class Judged(gymnasium.Env[Any, Any]):
    """Task that reports success: the last action of an episode must equal the observed digit.

    The reward of the last step is 1 if it does. The success reported at earlier steps is the opposite.

    Args:
        key: of info, under which success is reported.
        silent: whether episodes with the digit 0 report nothing.
    """

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(3)

    def __init__(self, key: str = "is_success", silent: bool = False) -> None:
        self.key = key
        self.silent = silent

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.last = 0, int(self.np_random.integers(2, 6))
        self.digit = int(self.np_random.integers(3))
        return self.digit, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        right, ended = bool(action == self.digit), self.count == self.last
        info = {} if self.silent and self.digit == 0 else {self.key: right == ended}
        return self.digit, float(right and ended), ended, False, info


class Painted(gymnasium.Env[Any, Any]):
    """Environment that renders its step count as a shade of grey; the reward is 1 per step.

    Args:
        render_mode: None, or "rgb_array".
        steps: of an episode.
        breaks: step at which rendering raises; if negative, minus the step at which it ends the process.
    """

    observation_space = spaces.Box(-1e6, 1e6, (1,), np.float32)
    action_space = spaces.Discrete(2)
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 100}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, steps: int = 23, breaks: int | None = None) -> None:
        self.render_mode, self.steps, self.breaks = render_mode, steps, breaks
        self.count = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return np.full(1, self.count, np.float32), 1.0, False, self.count == self.steps, {}

    def render(self) -> Any:
        if self.breaks is not None and self.count == abs(self.breaks):
            if self.breaks < 0:
                os._exit(3)
            raise ValueError("no more paint")
        return np.full((101, 121, 3), 10 * self.count, np.uint8)


class Lying(Painted):
    """Environment with invalid images or metadata.

    Args:
        lie: render() returns "nothing", "numbers", or nothing "later", from the second step on; images "grow" with each
            step, or are "empty"; the "metadata" are None, or render_fps is "fast", "negative" or "endless".
    """

    def __init__(self, lie: str, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.lie = lie
        fps: dict[str, Any] = {"fast": "fast", "negative": -5, "endless": float("inf")}
        self.metadata = None if lie == "metadata" else self.metadata | {"render_fps": fps.get(lie, 100)}  # type: ignore[assignment]

    def render(self) -> Any:
        match self.lie:
            case "nothing":
                return None
            case "numbers":
                return [1.0, 2.0]
            case "later" if self.count > 1:
                return None
            case "grow":
                return np.zeros((20 + self.count, 30 + self.count, 3), np.uint8)
            case "empty":
                return np.zeros((0, 0, 3), np.uint8)
        return super().render()


class Coin(gymnasium.Env[Any, Any]):
    """Environment whose episodes end after five steps or never, at random; the reward is 1 per step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None, endless: bool = False) -> None:
        self.render_mode, self.endless = render_mode, endless

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.ends = 0, not self.endless and bool(self.np_random.integers(2))
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return np.zeros(2, np.float32), 1.0, self.ends and self.count == 5, False, {}

    def render(self) -> Any:
        return np.full((24, 32, 3), self.count, np.uint8)


for name, kind, limit in (
    ("Endless", Endless, 16),
    ("Counter", Counter, None),
    ("CoinFlip", CoinFlip, None),
    ("Echo", Echo, None),
    ("TwoButtons", TwoButtons, None),
    ("Recall", Recall, None),
    ("BlindCartPole", blind_cartpole, None),
    ("PaidCartPole", paid_cartpole, None),
    ("Catch", Catch, None),
    ("Masked", Masked, None),
    ("Unmakeable", Unmakeable, None),
    ("Gifted", Gifted, 16),
    ("Judged", Judged, None),
    ("Painted", Painted, None),
    ("Lying", Lying, None),
    ("Coin", Coin, None),
):
    if f"{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"{name}-v0", kind, max_episode_steps=limit)
