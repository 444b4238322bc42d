"""What crosses a folder: rollouts, batches, agents, distributions, optimizers and update rules.

Time comes first: `[T, N, ...]` is T steps of N environments, `[B, ...]` the flattened rows of a batch.
"""

from pgx.specs import ActionSpec, Continuous, Discrete, Image, MultiDiscrete, ObsSpec
from pgx.types.agent import Act, Agent
from pgx.types.data import Batch, Rollout, rows_of, shuffled_parts
from pgx.types.engine import Bound, Engine
from pgx.types.networks import (
    ActionValueCritic,
    Critic,
    Distribution,
    Memory,
    Normalizer,
    Policy,
    RecurrentPolicy,
    ValueHeadPolicy,
)
from pgx.types.observations import History, Observations
from pgx.types.plain import Metrics, State
from pgx.types.ranks import ALONE, Ranks, Share
from pgx.types.rule import Algorithm, Learner, Loss, Optimizer, Setting, Use

__all__ = [
    "ALONE",
    "Act",
    "ActionSpec",
    "ActionValueCritic",
    "Agent",
    "Algorithm",
    "Batch",
    "Bound",
    "Continuous",
    "Critic",
    "Discrete",
    "Distribution",
    "Engine",
    "History",
    "Image",
    "Learner",
    "Loss",
    "Memory",
    "Metrics",
    "MultiDiscrete",
    "Normalizer",
    "ObsSpec",
    "Observations",
    "Optimizer",
    "Policy",
    "Ranks",
    "RecurrentPolicy",
    "Rollout",
    "Setting",
    "Share",
    "State",
    "Use",
    "ValueHeadPolicy",
    "rows_of",
    "shuffled_parts",
]
