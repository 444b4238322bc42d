"""What a program is found again by: everything but what tensors hold, and the same words in every process."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from pgx.algos.ppo import PPO
from pgx.compiler.arguments import NotDescribable, describe_arguments
from pgx.config.run_config import make_spec
from pgx.core.data import Batch, Observations
from pgx.core.specs import Continuous, Discrete, Image
from pgx.core.tensor_tree import call_with_tensors, named_tensors, replace_tensors, tensor_leaves
from pgx.networks import CRITICS, POLICIES
from tests.conftest import composed


@dataclass(frozen=True)
class Pair:
    left: Tensor
    scale: float
    right: tuple[Tensor, Tensor] | None


def numbers(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def batch(rows: int) -> Batch:
    seen = Observations(numbers(rows, 3), torch.zeros(rows, dtype=torch.int64))
    return Batch(seen, numbers(rows, 2), *(numbers(rows) + i for i in range(4)))


def test_a_value_taken_apart_and_rebuilt_is_itself() -> None:
    value = (Pair(numbers(2), 0.5, (numbers(3), numbers(1))), batch(4), None, "word", numbers(1, 2))
    tensors = list(tensor_leaves(value))
    assert len(tensors) == 3 + 7 + 1
    again = replace_tensors(value, iter(tensors))
    assert describe_arguments(again) == describe_arguments(value)
    assert all(a is b for a, b in zip(tensor_leaves(again), tensors, strict=True))


def test_a_network_substituted_computes_with_the_other_weights_and_keeps_its_own() -> None:
    own, other = nn.Linear(3, 2), nn.Linear(3, 2)
    before = [p.clone() for p in own.parameters()]
    x = numbers(4, 3)
    result = call_with_tensors([(own, dict(named_tensors(other)))], own, x)
    assert torch.equal(result, other(x))
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), before, strict=True))


def test_tensors_describe_alike_whatever_they_hold() -> None:
    assert describe_arguments(batch(3)) == describe_arguments(replace(batch(3), value=numbers(3) * 7))


def ppo(**changes: object) -> PPO:
    values = dict(composed("algo=ppo").algo) | changes
    values.pop("name")
    return PPO(**values)


@pytest.mark.parametrize(
    "change",
    [{"clip_range": 0.1}, {"entropy_coefficient": 0.01}, {"normalize_advantage": "off"}, {"value_clip": 1.0}],
)
def test_a_rule_of_another_value_has_another_description(change: dict[str, object]) -> None:
    assert describe_arguments(ppo()._policy_loss) == describe_arguments(ppo()._policy_loss)
    assert describe_arguments(ppo()._policy_loss) != describe_arguments(ppo(**change)._policy_loss)


def test_methods_of_one_object_have_different_descriptions() -> None:
    assert describe_arguments(ppo()._policy_loss) != describe_arguments(ppo()._critic_loss)


class Scaled(nn.Module):
    """A network with a number that is neither parameter nor buffer nor shown by repr."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_plain_numbers_inside_networks_count() -> None:
    def net(scale: float) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.Sequential(Scaled(scale)))

    assert repr(net(1.0)) == repr(net(2.0))
    assert describe_arguments(net(1.0)) == describe_arguments(net(1.0))
    assert describe_arguments(net(1.0)) != describe_arguments(net(2.0))


def test_the_make_of_a_network_counts() -> None:
    nets = [nn.Sequential(nn.Linear(2, 2), layer) for layer in (nn.Tanh(), nn.ReLU(), nn.ELU(), nn.ELU(0.5))]
    assert len({describe_arguments(net) for net in nets}) == len(nets)


@pytest.mark.parametrize("what", [lambda x: x, object(), partial(max, object())])
def test_arguments_without_a_description_raise(what: Callable[..., object]) -> None:
    with pytest.raises(NotDescribable):
        describe_arguments(what)


@pytest.mark.parametrize("name", sorted(POLICIES) + [f"critic {name}" for name in sorted(CRITICS)])
def test_all_that_a_network_computes_with_is_parameter_buffer_or_described(name: str) -> None:
    """A tensor kept elsewhere would be frozen into programs and shared by runs of other seeds."""
    kind, _, short = name.rpartition(" ")
    section = "critic" if kind else "policy"
    obs = {"tabular": Discrete(5), "cnn": Image((84, 84, 3))}.get(short, Continuous((3,)))
    cfg = composed(f"{section}={short}")
    spec = make_spec(section, cast(dict[str, Any], OmegaConf.to_container(cfg[section])))
    net = spec.make(obs, Discrete(2), torch.Generator().manual_seed(0))
    loose = [
        f"{type(module).__name__}.{key}"
        for module in net.modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor)
        or (isinstance(value, tuple | list) and any(isinstance(v, Tensor) for v in value))
    ]
    assert loose in ([], ["GRU._flat_weights"], ["LSTM._flat_weights"], ["GRUCell._flat_weights"])


@pytest.mark.system
def test_the_words_are_the_same_in_another_process() -> None:
    code = (
        "from torch import nn\nfrom pgx.compiler.arguments import describe_arguments\n"
        "from tests.compiler.test_arguments import Scaled, ppo\n"
        "print(describe_arguments((ppo()._policy_loss, nn.Sequential(nn.Linear(2, 3), Scaled(0.5)), 1.5, None)))"
    )
    said = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert "0x" not in said[0]  # an address
