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
    """A function some of whose arguments are given; the others are tensors."""

    def __call__(self, *varying: Tensor) -> tuple[Tensor, ...]: ...

    def scan(self, items: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[list[Tensor], Sequence[Tensor]]:
        """result, *state = function(item, *state) for each item in turn; returns the results and the last state."""
        ...


class SupportsBind(Protocol):
    """Part of an engine that rollout collectors use."""

    def bind(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *fixed: Any,
        rows: int | None = None,
        ragged: Sequence[int] = (),
    ) -> Bound:
        """The function with its first arguments given; the others, tensors all, are what it is then called with.

        Args:
            function: pure; a function of a module, or a method of a dataclass of plain values. What Python decides in
                it may depend on shapes and plain values, not on what tensors hold.
            fixed: networks (as they are at each call), data classes, tuples, tensors and plain values.
            rows: B, where tensors among `fixed` (networks apart) whose first size is B may have another in the next
                call; the code is the same for all of them. None: every size is a constant of the code.
            ragged: which of the other arguments, by position, may likewise have any first size, the same for all.

        Returns:
            (*tensors) -> tuple of tensors, outside of autograd where it is compiled.
        """
        ...


class Engine(SupportsBind, Protocol):
    """Execution of pure functions of networks and tensors, eager or compiled."""

    def prepare(
        self, function: Callable[..., Callable[[Tensor], Tensor]], *fixed: Any, rows: int | None = None
    ) -> Callable[[Tensor], Tensor]:
        """function(*fixed), which is itself a function, of a tensor to a tensor.

        Where nothing is compiled, what the outer function does is done once, before the inner one is called.

        Args as in `bind`.
        """
        ...

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Callable[[], _Result]:
        """function(*arguments), begun now, and beside what follows where that is of use; call what is returned for it.

        Until then nothing may touch what the function changes, nor change what it reads.
        """
        ...

    def settle(self) -> None:
        """Wait until no function that `submit` began is running; its result, or what it raised, is dropped.

        A caller that ends between `submit` and the call for the result leaves the function running.
        """
        ...


# (network, *data) -> scalar: a function of a module or a method of a rule, of nothing but its arguments.
Loss = Callable[..., Tensor]


class Optimizer(Protocol):
    """Descends losses of one network: gradient, clipping by norm, one step at the annealed learning rate.

    The data of a loss are batches, distributions, observations or tensors of as many rows, and tensors without
    dimensions, which belong to all rows.
    """

    @property
    def steps_taken(self) -> int:
        """Steps that it has taken in this process: counted, and no part of its state."""
        ...

    def anneal(self, progress: float) -> float:
        """Set the learning rate for this progress in [0, 1]; returns it."""
        ...

    def step(self, loss: Loss, *data: Any) -> Tensor:
        """One step down loss(network, *data); returns the loss before it, detached scalar."""
        ...

    def step_minibatches(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        """A step for each minibatch of rows, indices [b] int64; returns the losses before them, [len(minibatches)]."""
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
    generator: torch.Generator  # of shuffles, and of whatever else a rule draws
    state: State = field(default_factory=dict)  # of the rule: numbers and tensors by name

    @property
    def gradient_steps(self) -> int:
        """Steps that both optimizers have taken in this process."""
        return self.optimizer.steps_taken + self.critic_optimizer.steps_taken

    def anneal(self, progress: float) -> Metrics:
        """Set the learning rates for this progress in [0, 1], and report those of networks that learn by steps."""
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

    rollout_steps: int | None  # T; None: whole episodes, however long they last
    num_envs: int  # N
    policy: str  # its name
    critic: str  # its name
    sequence_length: (
        int | None
    )  # of the sequences that a recurrent policy learns from; None: a feed-forward policy

    @property
    def is_recurrent(self) -> bool:
        """Whether the policy is recurrent."""
        return self.sequence_length is not None


# Capabilities of a rule. A config that offers what its rule does not use, or lacks what it uses, is refused; rules with
# one of the last four also work without it.
#   optimizer, critic_optimizer: takes steps of the policy's, of the critic's optimizer
#   action_values: needs a critic of (observation, action)
#   value_head: needs a policy with a value head
#   recorded: learns from recorded steps of another policy
#   off_policy: learns from steps that its own policy took some updates ago
#   shared_parameters: other processes change the parameters during an update, so a rule moves them by steps of its
#       optimizers alone and keeps no state
#   ranks: other processes have a part of the rows, so means over rows are those of its optimizers or of its batch
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
    """An update rule. Its dataclass fields are its hyperparameters and the keys of its YAML file.

    It has no state: what it is_recurrent from one update to the next is in `Learner.state`.
    """

    discount: float

    @property
    def uses(self) -> frozenset[Use]:
        """Capabilities used with these hyperparameters."""
        ...

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Definitions of what `update` reports in addition to the learning rates, shown as algo/<key>."""
        ...

    def conflicts(self, setting: Setting) -> list[str]:
        """Return a message with the arithmetic for each conflict with the setting."""
        ...

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        """The batch that the rule learns from: its advantages and value targets. Changes nothing."""
        ...

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        """Do one iteration of the rule, and return what it reports: `metrics` and the learning rates.

        Args:
            agent: whose parameters change.
            learner: optimizers, engine, random stream and state of the rule.
            rollout: rows [T, N].
            progress: in [0, 1], the fraction of the step budget used so far.
        """
        ...
