"""Protocols of update rules, optimizers and engines, and the Learner that a rule updates with."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from pgx.core.agent import Agent, Metrics, State
from pgx.core.data import Batch, Rollout
from pgx.core.metrics import Metric
from pgx.core.ranks import SINGLE_PROCESS, Ranks

_Result = TypeVar("_Result")


class Bound(Protocol):
    """Function with bound first arguments; the remaining arguments are tensors."""

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]: ...

    def scan(self, items: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[list[Tensor], Sequence[Tensor]]:
        """Compute result, *state = function(item, *state) for each item, and return the results and the last state."""
        ...


class SupportsBind(Protocol):
    """Part of an engine that rollout collectors use: binding of arguments."""

    def bind(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *fixed: Any,
        rows: int | None = None,
        ragged: Sequence[int] = (),
    ) -> Bound:
        """Return the function with its first arguments bound; it is then called with the remaining ones, all tensors.

        Args:
            function: pure function of a module, or method of a dataclass of plain values. Its control flow may depend
                on shapes and plain values, but not on values of tensors.
            fixed: networks (with their parameters at each call), dataclasses, tuples, tensors and plain values.
            rows: B, if the first size of tensors in `fixed` (except networks) with B rows varies between calls: the
                compiled code then accepts any number of rows. None: all sizes are constants of the code.
            ragged: positions of the remaining arguments whose first size varies likewise; it is the same for all.

        Returns:
            Function of tensors to a tuple of tensors; compiled functions are outside of autograd.
        """
        ...


class Engine(SupportsBind, Protocol):
    """Execution of pure functions of networks and tensors, eager or compiled."""

    def prepare(
        self, function: Callable[..., Callable[[Tensor], Tensor]], *fixed: Any, rows: int | None = None
    ) -> Callable[[Tensor], Tensor]:
        """Return function(*fixed), which is itself a function of a tensor to a tensor.

        In eager mode the outer function is executed once, before the calls of the inner one. Args as in `bind`.
        """
        ...

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Callable[[], _Result]:
        """Start function(*arguments), possibly in parallel, and return a function that waits for its result.

        Until then the caller must not use what the function changes, or change what it reads.
        """
        ...

    def settle(self) -> None:
        """Wait for functions that `submit` started, and drop their results and exceptions.

        A caller that is interrupted between `submit` and the call for the result leaves the function running.
        """
        ...


# (network, *data) -> scalar: a pure function of a module, or a pure method of a rule.
Loss = Callable[..., Tensor]


class Optimizer(Protocol):
    """Optimizer of one network: gradient of a loss, clipping by norm, step with the annealed learning rate.

    The data of a loss are batches, distributions, observations and tensors with equal numbers of rows, and tensors
    without dimensions, which belong to all rows.
    """

    @property
    def steps_taken(self) -> int:
        """Steps taken in this process; not part of the state."""
        ...

    def anneal(self, progress: float) -> float:
        """Set the learning rate for a progress in [0, 1], and return it."""
        ...

    def step(self, loss: Loss, *data: Any) -> Tensor:
        """Take one step on loss(network, *data), and return the loss before it, a detached scalar."""
        ...

    def step_minibatches(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        """Take a step for each minibatch (row indices [b] int64), and return the losses before them, one each."""
        ...

    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> None: ...


class OptimizerSpec(Protocol):
    """Description of an optimizer without its network: a picklable dataclass of plain values."""

    def make(self, network: Any, engine: Engine, ranks: Ranks = SINGLE_PROCESS) -> Optimizer:
        """Return an optimizer of the network, a policy or critic; its losses are means over the rows of all ranks."""
        ...


@dataclass
class Learner:
    """Optimizers, engine, random stream and state of a rule; part of every checkpoint."""

    optimizer: Optimizer  # of the policy
    critic_optimizer: Optimizer
    engine: Engine
    generator: torch.Generator  # of shuffles and other random numbers of the rule
    state: State = field(default_factory=dict)  # of the rule: numbers and tensors by name

    @property
    def gradient_steps(self) -> int:
        """Steps of both optimizers in this process."""
        return self.optimizer.steps_taken + self.critic_optimizer.steps_taken

    def anneal(self, progress: float) -> Metrics:
        """Set the learning rates for a progress in [0, 1], and return those of networks that are trained by steps."""
        rates = {
            "learning_rate": self.optimizer.anneal(progress),
            "critic_learning_rate": self.critic_optimizer.anneal(progress),
        }
        return {key: rate for key, rate in rates.items() if not math.isnan(rate)}

    def state_dict(self) -> State:
        return {
            "optimizer": self.optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "memory": dict(self.state),
        }

    def load_state_dict(self, state: State) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.generator.set_state(state["generator"])
        self.state = dict(state["memory"])


@dataclass(frozen=True)
class Setting:
    """Values of a config that an update rule may conflict with."""

    rollout_steps: int | None  # T; None: whole episodes of any length
    num_envs: int  # N
    policy: str  # its name
    critic: str  # its name
    sequence_length: int | None  # of sequences that train a recurrent policy; None: a feed-forward policy

    @property
    def is_recurrent(self) -> bool:
        """Return whether the policy is recurrent."""
        return self.sequence_length is not None


# Capabilities of a rule. A config that provides what its rule does not use, or lacks what it uses, is refused. The last
# four are optional: rules with one of them also work without it.
#   optimizer, critic_optimizer: takes steps of the optimizer of the policy or the critic
#   action_values: needs a critic of (observation, action)
#   value_head: needs a policy with a value head
#   recorded: learns from recorded steps of another policy
#   off_policy: learns from steps of its own policy of some updates ago
#   shared_parameters: other processes may change the parameters during an update; the rule changes them only by steps
#       of its optimizers and has no state
#   ranks: other processes may have a part of the rows; the rule takes means over rows by its optimizers or its batch
Use = Literal[
    "optimizer",
    "critic_optimizer",
    "action_values",
    "value_head",
    "recorded",
    "off_policy",
    "shared_parameters",
    "ranks",
]


class Algorithm(Protocol):
    """Update rule. Its dataclass fields are its hyperparameters and the keys of its YAML file.

    A rule has no state: values that it keeps between updates are in `Learner.state`.
    """

    discount: float

    @property
    def uses(self) -> frozenset[Use]:
        """Capabilities used with these hyperparameters."""
        ...

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Definitions of the metrics of `update`, except the learning rates; shown as algo/<key>."""
        ...

    def conflicts(self, setting: Setting) -> list[str]:
        """Return a message with the arithmetic for each conflict with the setting."""
        ...

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        """Return the batch that the rule learns from, with advantages and value targets. Changes nothing."""
        ...

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        """Do one iteration of the rule, and return its metrics and the learning rates.

        Args:
            agent: its parameters change.
            learner: optimizers, engine, random stream and state of the rule.
            rollout: rows [T, N].
            progress: in [0, 1], the fraction of the step budget used so far.
        """
        ...
