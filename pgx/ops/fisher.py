"""Products with the Fisher information matrix F of a policy, computed without forming F.

F = E_s[ J(s)ᵀ M(s) J(s) ], where J is the Jacobian of the distribution's params with respect to the policy's
parameters, and M is the Fisher metric in those params. F is also the Hessian of the mean KL(π_old || π) at
π = π_old, so that the same product can be computed in two ways.

Source: Schulman et al., "Trust region policy optimization", 2015, appendix C.1; Martens, "New insights and
perspectives on the natural gradient method", 2020, section 9 (generalized Gauss-Newton).
"""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from pgx.core.agent import Distribution, Policy
from pgx.core.algorithm import Engine
from pgx.core.data import Batch, Observations
from pgx.ops.params import split

MatVec = Callable[[Tensor], Tensor]
CHUNK_ROWS = 1250  # largest number of rows in a chunk of `mean_over_chunks`


def fisher_vector_product(policy: Policy, obs: Observations, vector: Tensor) -> Tensor:
    """Return F v, averaged over the observations.

    Args:
        policy: π; its parameters, in order, are the coordinates of `vector`.
        obs: B observations.
        vector: [P].

    Returns:
        [P].
    """
    return gauss_newton_product(policy, obs)(vector)


def gauss_newton_product(policy: Policy, obs: Observations) -> MatVec:
    """Return v -> Jᵀ M J v, with one forward pass for any number of products.

    J v is computed as the derivative of w -> Jᵀ w, which is linear in w, in the direction v: differentiating the
    backward pass once costs less than a forward-mode pass for each product.

    Args:
        policy: π; its parameters, in order, are the coordinates of the vectors.
        obs: B observations.

    Returns:
        [P] -> [P].
    """
    distribution = policy(obs)
    return _sandwich(distribution.params, distribution.detach().fisher, list(policy.parameters()))


def empirical_fisher_product(policy: Policy, obs: Observations, action: Tensor) -> MatVec:
    """Return v -> 1/B Σ ψ (ψ · v), with the scores ψ = ∇ log π(a|s) of the given actions.

    For actions drawn from π its expectation is F v; unlike F v it has the noise of the actions. The scores, [B, P], are
    not formed.

    Source: Kakade, "A natural policy gradient", 2001, section 2, with expectations replaced by means over a sample.

    Args:
        policy: π; its parameters, in order, are the coordinates of the vectors.
        obs: B observations.
        action: [B, ...] actions taken at them.

    Returns:
        [P] -> [P].
    """
    log_prob = policy(obs).log_prob(action)
    return _sandwich((log_prob,), lambda tangent: tangent, list(policy.parameters()))


def _sandwich(
    outputs: tuple[Tensor, ...],
    metric: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]],
    parameters: list[nn.Parameter],
) -> MatVec:
    """Return v -> 1/B Jᵀ M J v, with J the Jacobian of B rows of outputs and M a metric of each row."""
    cotangent = tuple(torch.zeros_like(output, requires_grad=True) for output in outputs)
    pullback = torch.autograd.grad(outputs, parameters, cotangent, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        tangent = torch.autograd.grad(pullback, cotangent, split(vector, parameters), retain_graph=True)
        weighted = tuple(m / m.shape[0] for m in metric(tangent))
        grads = torch.autograd.grad(outputs, parameters, weighted, retain_graph=True)
        return torch.cat([g.reshape(-1) for g in grads])

    return product


def kl_hessian_product(policy: Policy, obs: Observations) -> MatVec:
    """Return v -> ∇(∇ mean KL(π_old || π) · v) at π = π_old, by differentiating twice.

    It equals `gauss_newton_product`, with the same arguments and result.
    """
    parameters = list(policy.parameters())
    distribution = policy(obs)
    mean_kl = distribution.detach().kl(distribution).mean()
    grads = torch.autograd.grad(mean_kl, parameters, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in grads])

    def product(vector: Tensor) -> Tensor:
        second = torch.autograd.grad(flat @ vector, parameters, retain_graph=True)
        return torch.cat([g.reshape(-1) for g in second])

    return product


def mean_over_chunks(
    product_at: Callable[[Observations], MatVec], obs: Observations, engine: Engine
) -> MatVec:
    """Return v -> F v as the mean over chunks of the rows, each weighted by its fraction of the rows.

    The product is the same, and faster: the data of a thousand rows fit a core's cache, while ten times as many rows
    take thirteen times as long. The chunks can also run in parallel.

    Args:
        product_at: returns v -> F v for some of the observations.
        obs: B observations. With a history they are one chunk, because its rows depend on each other.
        engine: runs the products.

    Returns:
        [P] -> [P].
    """
    if obs.history is not None or len(obs) <= CHUNK_ROWS:
        return product_at(obs)
    parts = torch.arange(len(obs), device=obs.time.device).tensor_split(math.ceil(len(obs) / CHUNK_ROWS))
    fractions = [len(part) / len(obs) for part in parts]
    *others, last = [product_at(obs[part]) for part in parts]

    def product(vector: Tensor) -> Tensor:
        pending = [engine.submit(chunk_product, vector) for chunk_product in others]
        last_result = last(vector)
        results = [*(result() for result in pending), last_result]
        return torch.stack([fraction * part for fraction, part in zip(fractions, results, strict=True)]).sum(
            0
        )

    return product


def mean_over_ranks(product: MatVec, batch: Batch) -> MatVec:
    """Return v -> F v over the rows of all ranks.

    Args:
        product: v -> F v over the rows of `batch`.
        batch: the rows of this rank.
    """

    def mean_product(vector: Tensor) -> Tensor:
        return batch.averaged(product(vector))[0]

    return product if batch.shard is None else mean_product


def damped(product: MatVec, damping: float) -> MatVec:
    """Return v -> F v + damping v."""

    def damped_product(vector: Tensor) -> Tensor:
        return product(vector) + damping * vector

    return damped_product


def dense_matrix(product: MatVec, like: Tensor) -> Tensor:
    """Form the matrix of a symmetric product by P products, for small policies.

    Args:
        product: [P] -> [P].
        like: [P], with the dtype and device of the matrix.

    Returns:
        [P, P].
    """
    return torch.stack([product(column) for column in torch.eye(len(like)).to(like)])


def scores(policy: Policy, obs: Observations, action: Tensor) -> Tensor:
    """Return the score ψ = ∇ log π(a|s) of every row.

    Args:
        policy: a feed-forward module; its parameters, in order, are the columns.
        obs: B observations.
        action: [B, ...] actions taken at them.

    Returns:
        [B, P], detached.
    """
    module = cast(nn.Module, policy)
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    mask = torch.ones(len(obs), 1, dtype=torch.bool) if obs.action_mask is None else obs.action_mask

    def log_prob(
        weights: dict[str, Tensor], action: Tensor, features: Tensor, time: Tensor, mask: Tensor
    ) -> Tensor:
        one = Observations(features[None], time[None], None if obs.action_mask is None else mask[None])
        distribution: Distribution = functional_call(module, weights, (one,))
        return distribution.log_prob(action.unsqueeze(0)).squeeze(0)

    columns = (action, obs.features, obs.time, mask)
    rows = vmap(grad(log_prob), in_dims=(None, 0, 0, 0, 0))(weights, *columns)
    return torch.cat([rows[name].flatten(1) for name in weights], 1)
