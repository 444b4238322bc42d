"""pgx: a laboratory for policy-gradient methods.

    import pgx

    run = pgx.train("trpo", "Walker2d-v4", total_steps=200_000, seed=1)
    run.evaluate(episodes=20)

Names are imported when they are first used, so `import pgx` takes milliseconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgx.algos.a2c import A2C as A2C
    from pgx.algos.actor_critic import ActorCritic as ActorCritic
    from pgx.algos.mdpo import MDPO as MDPO
    from pgx.algos.npg import NPG as NPG
    from pgx.algos.off_policy_reinforce import OffPolicyREINFORCE as OffPolicyREINFORCE
    from pgx.algos.ppg import PPG as PPG
    from pgx.algos.ppo import PPO as PPO
    from pgx.algos.ppo_kl import PPOKL as PPOKL
    from pgx.algos.reinforce import REINFORCE as REINFORCE
    from pgx.algos.trpo import TRPO as TRPO
    from pgx.algos.vtrace import VTrace as VTrace
    from pgx.api.comparison import RunComparison as RunComparison
    from pgx.api.comparison import compare as compare
    from pgx.api.loop import Collector as Collector
    from pgx.api.loop import Environments as Environments
    from pgx.api.loop import create_agent as create_agent
    from pgx.api.loop import create_envs as create_envs
    from pgx.api.loop import create_learner as create_learner
    from pgx.api.loop import episode_collector as episode_collector
    from pgx.api.loop import step_collector as step_collector
    from pgx.api.run import Run as Run
    from pgx.api.run import load as load
    from pgx.api.train import list_algos as list_algos
    from pgx.api.train import train as train
    from pgx.core.errors import ConfigError as ConfigError
    from pgx.core.errors import RunError as RunError
    from pgx.core.metrics import Metric as Metric
    from pgx.networks.action_values import QCritic as QCritic
    from pgx.networks.cnn import CNNCritic as CNNCritic
    from pgx.networks.cnn import CNNPolicy as CNNPolicy
    from pgx.networks.linear import FourierCritic as FourierCritic
    from pgx.networks.linear import FourierPolicy as FourierPolicy
    from pgx.networks.linear import LinearCritic as LinearCritic
    from pgx.networks.linear import LinearPolicy as LinearPolicy
    from pgx.networks.linear import PolynomialCritic as PolynomialCritic
    from pgx.networks.linear import PolynomialPolicy as PolynomialPolicy
    from pgx.networks.linear import RandomFourierCritic as RandomFourierCritic
    from pgx.networks.linear import RandomFourierPolicy as RandomFourierPolicy
    from pgx.networks.mlp import MLPCritic as MLPCritic
    from pgx.networks.mlp import MLPPolicy as MLPPolicy
    from pgx.networks.recurrent import GRUPolicy as GRUPolicy
    from pgx.networks.recurrent import LSTMPolicy as LSTMPolicy
    from pgx.networks.tabular import NoCritic as NoCritic
    from pgx.networks.tabular import TabularCritic as TabularCritic
    from pgx.networks.tabular import TabularPolicy as TabularPolicy
    from pgx.networks.tabular import TimeDependentCritic as TimeDependentCritic
    from pgx.networks.two_headed import TwoHeadedPolicy as TwoHeadedPolicy
    from pgx.ops.optim import LBFGS as LBFGS
    from pgx.ops.optim import SGD as SGD
    from pgx.ops.optim import Adam as Adam
    from pgx.ops.optim import AdamW as AdamW
    from pgx.ops.optim import NoOptimizer as NoOptimizer
    from pgx.ops.optim import RMSprop as RMSprop
    from pgx.training.callbacks import STOP as STOP
    from pgx.training.callbacks import Stop as Stop
    from pgx.training.callbacks import TrainingState as TrainingState

__version__ = "0.1.0"

_MODULES = {  # of each public name
    "A2C": "pgx.algos.a2c",
    "ActorCritic": "pgx.algos.actor_critic",
    "MDPO": "pgx.algos.mdpo",
    "NPG": "pgx.algos.npg",
    "OffPolicyREINFORCE": "pgx.algos.off_policy_reinforce",
    "PPG": "pgx.algos.ppg",
    "PPO": "pgx.algos.ppo",
    "PPOKL": "pgx.algos.ppo_kl",
    "REINFORCE": "pgx.algos.reinforce",
    "TRPO": "pgx.algos.trpo",
    "VTrace": "pgx.algos.vtrace",
    "RunComparison": "pgx.api.comparison",
    "compare": "pgx.api.comparison",
    "Collector": "pgx.api.loop",
    "Environments": "pgx.api.loop",
    "create_agent": "pgx.api.loop",
    "create_envs": "pgx.api.loop",
    "create_learner": "pgx.api.loop",
    "episode_collector": "pgx.api.loop",
    "step_collector": "pgx.api.loop",
    "Run": "pgx.api.run",
    "load": "pgx.api.run",
    "list_algos": "pgx.api.train",
    "train": "pgx.api.train",
    "ConfigError": "pgx.core.errors",
    "RunError": "pgx.core.errors",
    "Metric": "pgx.core.metrics",
    "QCritic": "pgx.networks.action_values",
    "CNNCritic": "pgx.networks.cnn",
    "CNNPolicy": "pgx.networks.cnn",
    "FourierCritic": "pgx.networks.linear",
    "FourierPolicy": "pgx.networks.linear",
    "LinearCritic": "pgx.networks.linear",
    "LinearPolicy": "pgx.networks.linear",
    "PolynomialCritic": "pgx.networks.linear",
    "PolynomialPolicy": "pgx.networks.linear",
    "RandomFourierCritic": "pgx.networks.linear",
    "RandomFourierPolicy": "pgx.networks.linear",
    "MLPCritic": "pgx.networks.mlp",
    "MLPPolicy": "pgx.networks.mlp",
    "GRUPolicy": "pgx.networks.recurrent",
    "LSTMPolicy": "pgx.networks.recurrent",
    "NoCritic": "pgx.networks.tabular",
    "TabularCritic": "pgx.networks.tabular",
    "TabularPolicy": "pgx.networks.tabular",
    "TimeDependentCritic": "pgx.networks.tabular",
    "TwoHeadedPolicy": "pgx.networks.two_headed",
    "LBFGS": "pgx.ops.optim",
    "SGD": "pgx.ops.optim",
    "Adam": "pgx.ops.optim",
    "AdamW": "pgx.ops.optim",
    "NoOptimizer": "pgx.ops.optim",
    "RMSprop": "pgx.ops.optim",
    "STOP": "pgx.training.callbacks",
    "Stop": "pgx.training.callbacks",
    "TrainingState": "pgx.training.callbacks",
}

__all__ = [
    "__version__",
    *_MODULES,
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'pgx' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
