"""L-BFGS: quasi-Newton steps for the regression of a critic."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pgx.core.agent import State
from pgx.core.algorithm import Engine, Loss
from pgx.core.data import rows_of
from pgx.core.defaults import DEFAULT
from pgx.core.ranks import SINGLE_PROCESS, Ranks
from pgx.core.schema import Count, Positive, Validated
from pgx.ops.optim.formulas import SCHEDULES, Schedule, ScheduleName
from pgx.ops.optim.gradient_steps import rows_tensor


class LBFGSSteps:
    """Quasi-Newton steps with a line search; a step evaluates the loss several times.

    Args:
        network: network to optimize.
        inner: torch's L-BFGS over its parameters; its curvature estimates are reset in every step, because the next
            loss is a different function.
        schedule: factor of the learning rate as a function of progress in [0, 1].
        learning_rate: first step length of the line search, before annealing.
        ranks: the ranks over whose rows a loss is the mean.
    """

    def __init__(
        self,
        network: nn.Module,
        inner: torch.optim.LBFGS,
        learning_rate: float,
        schedule: Schedule,
        ranks: Ranks,
    ) -> None:
        self.network = network
        self.inner = inner
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.ranks = ranks
        self.steps_taken = 0  # quasi-Newton iterations

    def anneal(self, progress: float) -> float:
        """Set and return the learning rate for this progress in [0, 1]."""
        rate = self.learning_rate * self.schedule(progress)
        self.inner.param_groups[0]["lr"] = rate
        return rate

    def step(self, loss: Loss, *data: Any) -> Tensor:
        """Minimize the loss by the configured number of iterations; return the loss before them, detached scalar."""

        def closure() -> Tensor:
            self.inner.zero_grad(set_to_none=True)
            value = loss(self.network, *data)
            value.backward()  # type: ignore[no-untyped-call]
            gradients = [(p, p.grad) for p in self.network.parameters() if p.grad is not None]
            own = (gradient for _, gradient in gradients)
            value, *means = self.ranks.mean(rows_tensor(data, value), value.detach(), *own)
            for (parameter, _), mean in zip(gradients, means, strict=True):
                parameter.grad = mean
            return value

        self.inner.state.clear()
        before: Tensor = self.inner.step(closure)  # type: ignore[no-untyped-call]
        self.steps_taken += sum(state["n_iter"] for state in self.inner.state.values())
        return before.detach()

    def step_minibatches(self, loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        """Minimize the loss of each minibatch in turn; return the losses before, [len(minibatches)]."""
        return torch.stack([self.step(loss, *rows_of(data, index)) for index in minibatches])

    def state_dict(self) -> State:
        """Return an empty state: nothing is kept between steps."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to restore."""


@dataclass(frozen=True)
class LBFGS(Validated):
    """L-BFGS with a strong Wolfe line search, for a critic's regression on whole batches.

    Source: Nocedal and Wright, Numerical Optimization, algorithm 7.5; for value functions in Schulman et al., "High-
    dimensional continuous control using generalized advantage estimation", 2016, and Duan et al., 2016 (rllab).
    """

    config_file: ClassVar[str] = "critic_optimizer/lbfgs"

    learning_rate: Positive = DEFAULT  # first step length of the line search, before annealing
    schedule: ScheduleName = DEFAULT  # annealing of learning_rate over training
    iterations: Count = DEFAULT  # quasi-Newton iterations of one step
    history_size: Count = DEFAULT  # iterations whose curvature is kept

    def make(self, network: nn.Module, engine: Engine, ranks: Ranks = SINGLE_PROCESS) -> LBFGSSteps:
        """Return an optimizer of the network.

        The engine is unused: a line search branches on the values of tensors, which compiled code cannot do.
        """
        inner = torch.optim.LBFGS(
            list(network.parameters()),
            lr=self.learning_rate,
            max_iter=self.iterations,
            history_size=self.history_size,
            line_search_fn="strong_wolfe",
        )
        return LBFGSSteps(network, inner, self.learning_rate, SCHEDULES[self.schedule], ranks)
