"""What the processes of an A3C run have in common: parameters, moments of optimizers, the lens, counters."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pgx.core.agent import Agent
from pgx.core.rule import Optimizer
from pgx.core.tensor_tree import leaves
from pgx.envs.normalizers import RewardScaler
from pgx.ops.optim import GradientSteps
from pgx.ops.params import assign, flatten, split
from pgx.rollouts.shared import Column, attach


class Common:
    """Memory that all see and change without locks. Every number has one writer, but for weights and moments.

    Args:
        memory: descriptor of shared memory.
        agent: of the run's kind; its parameters and its lens are of the sizes to share.
        optimizers: of the policy and of the critic.
        workers: W.
    """

    def __init__(
        self, memory: int, agent: Agent, optimizers: tuple[Optimizer, Optimizer], workers: int
    ) -> None:
        sizes = [sum(p.numel() for p in parameters) for parameters in _parameters(agent)]
        counts = [len(o.moments) if isinstance(o, GradientSteps) else 0 for o in optimizers]
        lens = list(leaves(agent.normalizer.lens))
        columns = [Column(f"weights.{i}", (size,), torch.float32) for i, size in enumerate(sizes)]
        columns += [
            Column(f"moments.{i}.{k}", (sizes[i],), torch.float32) for i in (0, 1) for k in range(counts[i])
        ]
        columns += [Column(f"lens.{k}", tuple(part.shape), part.dtype) for k, part in enumerate(lens)]
        columns += [Column(name, (workers,), torch.int64) for name in ("steps", "updates")]
        columns += [Column("limit", (), torch.int64), Column("returns", (3,), torch.float64)]
        shared = attach(memory, columns)
        self.weights: list[Tensor] = [shared[f"weights.{i}"] for i in (0, 1)]  # of policy and critic, [P]
        self.moments: list[list[Tensor]] = [  # of their optimizers, [P] each
            [shared[f"moments.{i}.{k}"] for k in range(counts[i])] for i in (0, 1)
        ]
        self.lens: list[Tensor] = [shared[f"lens.{k}"] for k in range(len(lens))]
        self.steps = shared[
            "steps"
        ]  # [W] environment steps of each worker's updates; worker i writes number i
        self.updates = shared["updates"]  # [W] likewise
        self.limit = shared["limit"]  # workers rest when they have come so many steps together
        self.returns = shared["returns"]  # moments of RewardScaler: count, mean, squares

    @torch.no_grad()
    def hold(self, agent: Agent, optimizers: Sequence[Optimizer]) -> None:
        """From now on what these consist of is the common memory, which takes their numbers."""
        for parameters, weights in zip(_parameters(agent), self.weights, strict=True):
            if parameters:
                weights.copy_(flatten(parameters))
                for parameter, part in zip(parameters, split(weights, parameters), strict=True):
                    parameter.data = part
        for optimizer, moments in zip(optimizers, self.moments, strict=True):
            if isinstance(optimizer, GradientSteps):
                for shared, moment in zip(moments, optimizer.moments, strict=True):
                    shared.copy_(moment)
                optimizer.moments = moments
        for part, shared in zip(leaves(agent.normalizer.lens), self.lens, strict=True):
            shared.copy_(part)
            part.data = shared

    @torch.no_grad()
    def read(self, agent: Agent, scaler: RewardScaler | None) -> None:
        """Copy what it takes to act and to learn into an agent of the same kind, and into its scaler."""
        for parameters, weights in zip(_parameters(agent), self.weights, strict=True):
            if parameters:
                assign(parameters, weights)
        for part, shared in zip(leaves(agent.normalizer.lens), self.lens, strict=True):
            part.copy_(shared)
        if scaler is not None:
            count, mean, squares = self.returns.clone()
            scaler.moments.load_state_dict({"count": count, "mean": mean, "squares": squares})

    def publish(self, scaler: RewardScaler) -> None:
        """Let all know of the returns that the run has seen."""
        moments = scaler.moments
        self.returns.copy_(torch.stack([moments.count, moments.mean, moments.squares]))


def _parameters(agent: Agent) -> list[list[nn.Parameter]]:
    """Of the policy and of the critic."""
    return [list(agent.policy.parameters()), list(agent.critic.parameters())]
