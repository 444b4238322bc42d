"""Vector environment with a shaped reward."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import RunError, UserError
from pgx.core.specs import ActionSpec, Continuous, ObsSpec
from pgx.envs.rewards.spec import ENVIRONMENT, RewardSpec, Term, build_terms
from pgx.envs.rewards.terms import signal_of, torso
from pgx.envs.vector import AnyArray, RewardParts, SignalEnv, Step

_Floats = NDArray[np.float64]


class ShapedRewardEnv:
    """Vector environment with the reward w_0 r + sum_k w_k f_k: the environment's own reward r and terms f_k.

    The reward of a step that only resets is 0. State of an episode (the previous action, the time in the air) ends with
    it. A reset of all environments discards all state, so a checkpoint contains none.

    Args:
        envs: environments that read the signals of the terms, see `required_signals`.
        spec: of the reward.
        kwargs: of the environments' constructor.

    Raises:
        UserError: a term needs continuous actions, and the environment has others.
    """

    def __init__(self, envs: SignalEnv, spec: RewardSpec, kwargs: Mapping[str, Any]) -> None:
        self._envs = envs
        self._kwargs = dict(kwargs)
        self._own_weight = spec.environment
        self._terms = build_terms(spec)
        self._needed = {quantity for term in self._terms for quantity in term.quantities}
        n = envs.num_envs
        self._resetting = np.zeros(n, dtype=bool)  # the next step only resets this environment
        self._first_step = np.ones(n, dtype=bool)  # the next step is the first of an episode
        self._in_air = np.zeros(n)  # s
        self._bounds = _action_bounds(envs.action_spec)
        self._control = np.zeros((n, 1))  # of the previous step
        try:
            self._check_actions()
        except UserError:
            envs.close()
            raise

    def _check_actions(self) -> None:
        if self._bounds is not None:
            return
        names = [term.name for term in self._terms if {"control", "previous_control"} & set(term.quantities)]
        if names:
            raise UserError(
                *(
                    f"reward.terms.{name}: needs continuous actions, and {self.id} has {self.action_spec}; remove it, "
                    "or write a function that takes action"
                    for name in names
                )
            )

    @property
    def id(self) -> str:
        return self._envs.id

    @property
    def backend(self) -> str:
        return self._envs.backend

    @property
    def num_envs(self) -> int:
        return self._envs.num_envs

    @property
    def obs_spec(self) -> ObsSpec:
        return self._envs.obs_spec

    @property
    def action_spec(self) -> ActionSpec:
        return self._envs.action_spec

    @property
    def action_mask(self) -> NDArray[np.bool_] | None:
        return self._envs.action_mask

    @property
    def success(self) -> NDArray[np.int8] | None:
        return self._envs.success

    def reset(self, seed: int) -> AnyArray:
        obs = self._envs.reset(seed)
        self._resetting = np.zeros(self.num_envs, dtype=bool)
        self._first_step = np.ones(self.num_envs, dtype=bool)
        self._in_air = np.zeros(self.num_envs)
        return obs

    def send(self, action: AnyArray) -> None:
        self._action = action.copy()  # the caller may reuse its array before `receive`
        self._envs.send(action)

    def receive(self) -> Step:
        step = self._envs.receive()
        quantities = self._quantities(step)
        parts: dict[str, _Floats] = {}
        if self._own_weight:
            parts[ENVIRONMENT] = self._own_weight * step.reward
        parts |= {term.name: self._evaluate(term, quantities) for term in self._terms}
        self._first_step = self._resetting  # an episode begins after a step that only reset
        self._resetting = step.terminated | step.truncated
        return step._replace(
            reward=np.sum([*parts.values()], axis=0), reward_parts=RewardParts(step.reward, parts)
        )

    def _quantities(self, step: Step) -> dict[str, AnyArray]:
        """Return the quantities of the step that the terms need."""
        needed, signals = self._needed, self._envs.signals
        found: dict[str, AnyArray] = {
            "obs": step.obs,
            "own_reward": step.reward,
            "terminated": step.terminated,
            "action": self._action,
        }
        found |= {each: signals[name] for each in needed if (name := signal_of(each)) in signals and name}
        if self._bounds is not None and needed & {"control", "previous_control"}:
            control = np.clip(self._action.astype(np.float64), *self._bounds)
            found["control"] = control
            found["previous_control"] = np.where(self._first_step[:, None], control, self._control)
            self._control = control
        if needed & {"torso_height", "uprightness"}:
            found["torso_height"], found["uprightness"] = torso(self.id, self._kwargs, step.obs)
        if "time_in_air" in needed:
            flight = found["time_in_air"]  # duration of this step, or 0 with contact
            self._in_air = np.where(self._first_step | (flight == 0.0), 0.0, self._in_air) + flight
            found["time_in_air"] = self._in_air
        return found

    def _evaluate(self, term: Term, quantities: Mapping[str, AnyArray]) -> _Floats:
        """Return the weighted values of a term [N].

        Raises:
            RunError: its function raised, or did not return a finite number for each environment.
        """
        try:
            value = np.asarray(
                term.function(**{name: quantities[name] for name in term.quantities}, **term.values),
                np.float64,
            )
        except Exception as error:  # a user's function may raise anything
            raise RunError(f"reward.terms.{term.name} raised {type(error).__name__}: {error}") from error
        if value.shape != (self.num_envs,):
            raise RunError(
                f"reward.terms.{term.name} returned the shape {list(value.shape)}; expected [{self.num_envs}], a "
                "number for each environment"
            )
        weighted: _Floats = np.where(self._resetting, 0.0, term.weight * value)
        if not np.isfinite(weighted).all():
            number = int(np.flatnonzero(~np.isfinite(weighted))[0])
            raise RunError(
                f"reward.terms.{term.name} of environment {number} is not a finite number: {weighted[number]}"
            )
        return weighted

    def close(self) -> None:
        self._envs.close()


def _action_bounds(action: ActionSpec) -> tuple[_Floats, _Floats] | None:
    """Return the bounds of continuous actions, infinite where there are none; None for discrete actions."""
    if not isinstance(action, Continuous):
        return None
    low = np.full(action.shape, -np.inf) if action.low is None else np.array(action.low)
    high = np.full(action.shape, np.inf) if action.high is None else np.array(action.high)
    return low, high
