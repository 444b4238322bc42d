"""Products with the Fisher information matrix of a policy, without ever forming it.

F = E_s[ J(s)ᵀ M(s) J(s) ], where J is the Jacobian of the distribution's coordinates with respect to the
parameters and M the Fisher metric in those coordinates. F is also the Hessian of the mean KL(π_old || π) at
π = π_old: two ways to the same product.

Source: Schulman et al., "Trust region policy optimization", 2015, appendix C.1; Martens, "New insights and
perspectives on the natural gradient method", 2020, section 9 (generalised Gauss-Newton).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pgx.ops.params import split
from pgx.types import Policy

MatVec = Callable[[Tensor], Tensor]


def fisher_vector_product(policy: Policy, obs: Tensor, vector: Tensor) -> Tensor:
    """F v, averaged over the observations.

    Args:
        policy: its parameters, in their own order, are the coordinates of `vector`.
        obs: [B, ...] normalised observations.
        vector: [P].

    Returns:
        [P].
    """
    return gauss_newton_product(policy, obs)(vector)


def gauss_newton_product(policy: Policy, obs: Tensor) -> MatVec:
    """v -> Jᵀ M J v, with the forward pass done once for any number of products.

    J v is the derivative of w -> Jᵀ w, which is linear in w, in the direction v: differentiating the backward
    pass is cheaper here than a fresh forward-mode pass per product.

    Args:
        policy: parameters in their own order are the coordinates of the vectors.
        obs: [B, ...].

    Returns:
        [P] -> [P].
    """
    parameters = list(policy.parameters())
    distribution = policy(obs)
    outputs = distribution.coordinates
    metric = distribution.detach().fisher
    cotangent = tuple(torch.zeros_like(output, requires_grad=True) for output in outputs)
    pullback = torch.autograd.grad(outputs, parameters, cotangent, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        tangent = torch.autograd.grad(pullback, cotangent, split(vector, parameters), retain_graph=True)
        weighted = tuple(m / len(obs) for m in metric(tangent))
        grads = torch.autograd.grad(outputs, parameters, weighted, retain_graph=True)
        return torch.cat([g.reshape(-1) for g in grads])

    return product


def kl_hessian_product(policy: Policy, obs: Tensor) -> MatVec:
    """v -> ∇(∇ mean KL(π_old || π) · v) at π = π_old, by differentiating twice.

    Args and Returns as in `gauss_newton_product`, which it equals.
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
