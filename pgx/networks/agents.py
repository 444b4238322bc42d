"""Construction of agents from picklable specs, in the main process and in workers."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from pgx.core.agent import Agent, CriticSpec, Normalizer, PolicySpec
from pgx.core.seeding import generator
from pgx.core.specs import ActionSpec, Continuous, Image, ObsSpec
from pgx.envs.normalizers import Identity, ObservationNormalizer


@dataclass(frozen=True)
class AgentSpec:
    """Description of an agent without its environment."""

    policy: PolicySpec
    critic: CriticSpec
    normalize_obs: bool
    obs_clip: float  # bound on each normalized component; infinity: no bound
    seed: int  # of the run

    def make(self, obs: ObsSpec, action: ActionSpec, device: torch.device) -> Agent:
        """Return an untrained agent; its weights depend on the seed and these spaces only."""
        weights = generator(self.seed, "weights")
        policy: Any = self.policy.make(obs, action, weights)
        critic: Any = self.critic.make(obs, action, weights)
        normalizer: Normalizer = Identity()
        if self.normalize_obs and isinstance(obs, Continuous):
            normalizer = ObservationNormalizer(obs, self.obs_clip, device)
        return Agent(policy.to(device), critic.to(device), normalizer)


_FEW_PIXELS = 1000  # size up to which a perceptron is a reasonable choice


def flat_image_hint(values: Mapping[str, Any], obs: ObsSpec) -> str | None:
    """Return a hint to use convolutions if a perceptron takes large images as input; else None.

    Args:
        values: of a config: `policy` and `critic`, each with its name.
        obs: spec of the observations.
    """
    flat = [section for section in ("policy", "critic") if values[section]["name"] == "mlp"]
    if not isinstance(obs, Image) or not flat or prod(obs.shape) < _FEW_PIXELS:
        return None
    shape = " x ".join(map(str, obs.shape))
    named = " ".join(f"{section}=mlp" for section in flat)
    return f"{named} takes images of {shape} pixel by pixel; policy=cnn critic=cnn has far fewer weights"
