"""An agent from plain values: here, and in the worker processes of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from pgx.core.agent import Agent, Normalizer
from pgx.core.seeding import generator
from pgx.core.specs import ActionSpec, Continuous, Image, ObsSpec
from pgx.envs.normalizers import Identity, ObservationNormalizer
from pgx.networks import CRITICS, POLICIES


@dataclass(frozen=True)
class AgentPlan:
    """What an agent is made of, but for what its environments show and take."""

    policy: Mapping[str, Any]  # its name and its values
    critic: Mapping[str, Any]  # its name and its values
    normalize_obs: bool
    obs_clip: float  # bound on each normalised component; infinite for none
    seed: int  # of the run

    def make(self, obs: ObsSpec, action: ActionSpec, device: torch.device) -> Agent:
        """An agent that has learned nothing; its weights depend on the seed alone."""
        weights = generator(self.seed, "weights")
        networks: list[Any] = []
        for registry, values in ((POLICIES, self.policy), (CRITICS, self.critic)):
            own = {key: value for key, value in values.items() if key != "name"}
            networks.append(registry[values["name"]](obs=obs, action=action, generator=weights, **own))
        policy, critic = networks
        normalizer: Normalizer = Identity()
        if self.normalize_obs and isinstance(obs, Continuous):
            normalizer = ObservationNormalizer(obs, self.obs_clip, device)
        return Agent(policy.to(device), critic.to(device), normalizer)


FEW = 1000  # numbers of an image that a network may take one by one


def flat_image_hint(values: Mapping[str, Any], obs: ObsSpec) -> str | None:
    """Return a hint at convolutions for networks that take every pixel of an image as an input; None: there are none.

    Args:
        values: of a config: `policy` and `critic`, each with its name.
        obs: what the environments show.
    """
    flat = [section for section in ("policy", "critic") if values[section]["name"] == "mlp"]
    if not isinstance(obs, Image) or not flat or prod(obs.shape) < FEW:
        return None
    shape = " x ".join(map(str, obs.shape))
    named = " ".join(f"{section}=mlp" for section in flat)
    return f"{named} takes images of {shape} pixel by pixel; policy=cnn critic=cnn has far fewer weights"
