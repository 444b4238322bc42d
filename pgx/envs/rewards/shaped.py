"""Environments that are paid another reward than their own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import RunError, UserError
from pgx.core.specs import ActionSpec, Continuous, ObsSpec
from pgx.envs.rewards.spec import ENVIRONMENT, RewardSpec, Term, build_terms
from pgx.envs.rewards.terms import signal_of, torso
from pgx.envs.vector import Array, Shaping, SignalEnv, Step

Floats = NDArray[np.float64]


class ShapedRewardEnv:
    """A VectorEnv whose reward is w_0 r + sum_k w_k f_k: the environment's own r and terms f_k of the step.

    A step in which an environment only resets pays nothing, and what terms remember of an episode (the last action, the
    time in the air) ends with it. Nothing is remembered beyond a reset of all: a checkpoint needs none of it.

    Args:
        envs: which read what the terms need, see `required_signals`.
        plan: of the reward.
        kwargs: that the environments were made with.

    Raises:
        UserError: a term is of continuous actions, and these are not.
    """

    def __init__(self, envs: SignalEnv, plan: RewardSpec, kwargs: Mapping[str, Any]) -> None:
        self._envs = envs
        self._kwargs = dict(kwargs)
        self._own_weight = plan.environment
        self._terms = build_terms(plan)
        self._needs = {need for term in self._terms for need in term.needs}
        n = envs.num_envs
        self._resetting = np.zeros(n, dtype=bool)  # the step under way only resets this environment
        self._begins = np.ones(n, dtype=bool)  # the step under way is the first of an episode
        self._in_air = np.zeros(n)
        self._bounds = _bounds(envs.action_spec)
        self._control = np.zeros((n, 1))  # of the step before
        try:
            self._refuse_missing()
        except UserError:
            envs.close()
            raise

    def _refuse_missing(self) -> None:
        if self._bounds is not None:
            return
        asking = [term.name for term in self._terms if {"control", "previous_control"} & set(term.needs)]
        if asking:
            raise UserError(
                *(
                    f"reward.terms.{name}: of continuous actions, and {self.id} takes {self.action_spec}; a function "
                    "of your own can take action"
                    for name in asking
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

    def reset(self, seed: int) -> Array:
        obs = self._envs.reset(seed)
        self._resetting = np.zeros(self.num_envs, dtype=bool)
        self._begins = np.ones(self.num_envs, dtype=bool)
        self._in_air = np.zeros(self.num_envs)
        return obs

    def send(self, action: Array) -> None:
        self._action = action.copy()  # its owner may write into it before the step is over
        self._envs.send(action)

    def receive(self) -> Step:
        step = self._envs.receive()
        moment = self._quantities(step)
        parts: dict[str, Floats] = {}
        if self._own_weight:
            parts[ENVIRONMENT] = self._own_weight * step.reward
        parts |= {term.name: self._evaluate(term, moment) for term in self._terms}
        self._begins = self._resetting  # after a step that only reset an episode begins
        self._resetting = step.terminated | step.truncated
        return step._replace(reward=np.sum([*parts.values()], axis=0), shaping=Shaping(step.reward, parts))

    def _quantities(self, step: Step) -> dict[str, Array]:
        """The quantities of the step that terms need."""
        needs, signals = self._needs, self._envs.signals
        moment: dict[str, Array] = {
            "obs": step.obs,
            "own_reward": step.reward,
            "terminated": step.terminated,
            "action": self._action,
        }
        moment |= {need: signals[name] for need in needs if (name := signal_of(need)) in signals and name}
        if self._bounds is not None and needs & {"control", "previous_control"}:
            control = np.clip(self._action.astype(np.float64), *self._bounds)
            moment["control"] = control
            moment["previous_control"] = np.where(self._begins[:, None], control, self._control)
            self._control = control
        if needs & {"torso_height", "uprightness"}:
            moment["torso_height"], moment["uprightness"] = torso(self.id, self._kwargs, step.obs)
        if "time_in_air" in needs:
            flight = moment["time_in_air"]
            self._in_air = np.where(self._begins | (flight == 0.0), 0.0, self._in_air) + flight
            moment["time_in_air"] = self._in_air
        return moment

    def _evaluate(self, term: Term, moment: Mapping[str, Array]) -> Floats:
        """What a term adds to the reward [N].

        Raises:
            RunError: its function raised, or gave what is no number for each environment.
        """
        try:
            value = np.asarray(
                term.function(**{need: moment[need] for need in term.needs}, **term.values), np.float64
            )
        except Exception as error:  # whatever a function of the user's raises
            raise RunError(f"reward.terms.{term.name} raised {type(error).__name__}: {error}") from error
        if value.shape != (self.num_envs,):
            raise RunError(
                f"reward.terms.{term.name} gave the shape {list(value.shape)}; expected [{self.num_envs}], a number "
                "for each environment"
            )
        weighted: Floats = np.where(self._resetting, 0.0, term.weight * value)
        if not np.isfinite(weighted).all():
            number = int(np.flatnonzero(~np.isfinite(weighted))[0])
            raise RunError(
                f"reward.terms.{term.name} of environment {number} is not a finite number: {weighted[number]}"
            )
        return weighted

    def close(self) -> None:
        self._envs.close()


def _bounds(action: ActionSpec) -> tuple[Floats, Floats] | None:
    """Of continuous actions, infinite where there are none; None: they are discrete."""
    if not isinstance(action, Continuous):
        return None
    low = np.full(action.shape, -np.inf) if action.low is None else np.array(action.low)
    high = np.full(action.shape, np.inf) if action.high is None else np.array(action.high)
    return low, high
