"""Registries of policies and critics: the choices of the config sections `policy` and `critic`."""

from pgx.core.agent import CriticSpec, PolicySpec
from pgx.networks.action_values import QCritic
from pgx.networks.cnn import CNNCritic, CNNPolicy
from pgx.networks.linear import (
    FourierCritic,
    FourierPolicy,
    LinearCritic,
    LinearPolicy,
    PolynomialCritic,
    PolynomialPolicy,
    RandomFourierCritic,
    RandomFourierPolicy,
)
from pgx.networks.mlp import MLPCritic, MLPPolicy
from pgx.networks.recurrent import GRUPolicy, LSTMPolicy
from pgx.networks.tabular import NoCritic, TabularCritic, TabularPolicy, TimeDependentCritic
from pgx.networks.two_headed import TwoHeadedPolicy

POLICIES: dict[str, type[PolicySpec]] = {
    "mlp": MLPPolicy,
    "cnn": CNNPolicy,
    "two_headed": TwoHeadedPolicy,
    "tabular": TabularPolicy,
    "linear": LinearPolicy,
    "polynomial": PolynomialPolicy,
    "fourier": FourierPolicy,
    "random_fourier": RandomFourierPolicy,
    "gru": GRUPolicy,
    "lstm": LSTMPolicy,
}
CRITICS: dict[str, type[CriticSpec]] = {
    "mlp": MLPCritic,
    "cnn": CNNCritic,
    "none": NoCritic,
    "q": QCritic,
    "tabular": TabularCritic,
    "linear": LinearCritic,
    "polynomial": PolynomialCritic,
    "fourier": FourierCritic,
    "random_fourier": RandomFourierCritic,
    "time_dependent": TimeDependentCritic,
}

# Properties that an update rule may require or reject.
RECURRENT = frozenset({"gru", "lstm"})  # policies
WITH_VALUE_HEAD = frozenset({"two_headed"})  # policies
WITH_ACTION_VALUES = frozenset({"q"})  # critics
WITHOUT_PARAMETERS = frozenset({"none"})  # critics
