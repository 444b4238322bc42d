"""Networks by name: what `policy=` and `critic=` choose from. Each is a function from specs to a module."""

from collections.abc import Callable

from torch import nn

from pgx.networks.action_values import q_critic
from pgx.networks.cnn import cnn_critic, cnn_policy
from pgx.networks.linear import (
    fourier_critic,
    fourier_policy,
    linear_critic,
    linear_policy,
    polynomial_critic,
    polynomial_policy,
    random_fourier_critic,
    random_fourier_policy,
)
from pgx.networks.mlp import mlp_critic, mlp_policy
from pgx.networks.recurrent import gru_policy, lstm_policy
from pgx.networks.tabular import no_critic, tabular_critic, tabular_policy
from pgx.networks.time_dependent import time_dependent_critic
from pgx.networks.two_headed import two_headed

POLICIES: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp_policy,
    "cnn": cnn_policy,
    "two_headed": two_headed,
    "tabular": tabular_policy,
    "linear": linear_policy,
    "polynomial": polynomial_policy,
    "fourier": fourier_policy,
    "random_fourier": random_fourier_policy,
    "gru": gru_policy,
    "lstm": lstm_policy,
}
CRITICS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp_critic,
    "cnn": cnn_critic,
    "none": no_critic,
    "q": q_critic,
    "tabular": tabular_critic,
    "linear": linear_critic,
    "polynomial": polynomial_critic,
    "fourier": fourier_critic,
    "random_fourier": random_fourier_critic,
    "time_dependent": time_dependent_critic,
}

# What some of them have that a rule may need, or cannot take.
WITH_MEMORY = frozenset({"gru", "lstm"})  # policies
WITH_VALUE_HEAD = frozenset({"two_headed"})  # policies
WITH_ACTION_VALUES = frozenset({"q"})  # critics
WITHOUT_PARAMETERS = frozenset({"none"})  # critics
