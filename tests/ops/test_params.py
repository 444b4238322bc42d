"""Tests of the conversion between parameters and one vector."""

import pytest
import torch
from torch import Tensor, nn

from pgx.ops.params import assign, flatten, gradient, split


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def bits(tensor: Tensor) -> list[int]:
    return tensor.detach().flatten().view(torch.int32).tolist()


def test_flatten_then_assign_restores_every_bit() -> None:
    net, other = network(0), network(1)
    with torch.no_grad():
        next(net.parameters())[0] = torch.tensor(
            [-0.0, 1e-42, float("inf")]
        )  # signed zero, denormal, infinity
    vector = flatten(net.parameters())
    assign(list(other.parameters()), vector)
    assert bits(flatten(other.parameters())) == bits(vector)
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert bits(mine) == bits(theirs)


def test_flatten_is_a_detached_copy() -> None:
    net = network()
    vector = flatten(net.parameters())
    before = vector.clone()
    assert not vector.requires_grad
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    assert torch.equal(vector, before)


def test_a_single_tensor_is_copied_too() -> None:
    x = torch.zeros(3)
    vector = flatten([x])
    x += 1
    assert (vector == 0).all()


def test_assign_copies_into_the_same_parameters() -> None:
    net = network()
    parameters = list(net.parameters())
    vector = torch.arange(26.0)
    assign(parameters, vector)
    vector += 100
    assert flatten(net.parameters()).tolist() == list(range(26))
    assert [id(p) for p in net.parameters()] == [id(p) for p in parameters]
    assert all(p.requires_grad and p.is_leaf for p in parameters)


def test_split_is_the_inverse_of_flatten() -> None:
    tensors = [
        torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for shape in [(2, 3), (4,), (), (1, 1, 2)]
    ]
    parts = split(flatten(tensors), tensors)
    assert [p.shape for p in parts] == [t.shape for t in tensors]
    assert all(torch.equal(p, t) for p, t in zip(parts, tensors, strict=True))
    vector = torch.arange(13.0)
    assert torch.equal(flatten(split(vector, tensors)), vector)


@pytest.mark.parametrize("length", [12, 14])
def test_split_refuses_a_vector_of_another_length(length: int) -> None:
    tensors = [torch.zeros(2, 3), torch.zeros(7)]
    with pytest.raises(RuntimeError):
        split(torch.zeros(length), tensors)


def test_gradient_is_that_of_backward_in_the_same_order() -> None:
    net = network()
    parameters = list(net.parameters())
    obs = torch.tensor([[1.0, -2.0, 0.5]])
    vector = gradient(net(obs).square().sum(), parameters)
    net(obs).square().sum().backward()
    expected = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    assert torch.equal(vector, expected)
    assert not vector.requires_grad


def test_gradient_is_zero_for_parameters_without_influence() -> None:
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    assert gradient((3 * used).sum(), [unused, used]).tolist() == [0.0, 0.0, 0.0, 0.0, 3.0, 3.0]
