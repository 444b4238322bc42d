"""Networks by name: what `policy=` and `critic=` choose from. Each is a function from specs to a module."""

from collections.abc import Callable

from torch import nn

from pgx.policies.mlp import mlp_critic, mlp_policy

POLICIES: dict[str, Callable[..., nn.Module]] = {"mlp": mlp_policy}
CRITICS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp_critic}
