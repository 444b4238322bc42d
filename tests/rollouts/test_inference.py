"""Central inference: every actor receives the policy's actions, also with simultaneous requests."""

import os
import select
import threading
from collections.abc import Iterator

import pytest
import torch

from pgx.compiler import Eager
from pgx.core.agent import Agent
from pgx.core.specs import Continuous, Discrete
from pgx.distributed.shared_memory import ArraySpec
from pgx.networks.agents import AgentSpec
from pgx.networks.mlp import MLPPolicy
from pgx.networks.tabular import NoCritic
from pgx.rollouts.collector import respond
from pgx.rollouts.inference import REQUEST, InferenceServer, RemotePolicy, example_inputs
from pgx.rollouts.shared_parameters import inference_tensors

CPU, N = torch.device("cpu"), 3
MLP = MLPPolicy(
    hidden=[8],
    activation="tanh",
    hidden_gain=1.0,
    output_gain=1.0,
    log_std_init=0.0,
    continuous="gaussian",
)


def make_agent(seed: int) -> Agent:
    spec = AgentSpec(MLP, NoCritic(), normalize_obs=True, obs_clip=10.0, seed=seed)
    return spec.make(Continuous((4,)), Discrete(5), CPU)


@pytest.fixture
def server() -> Iterator[InferenceServer]:
    agent = make_agent(0)
    given = example_inputs(agent, ArraySpec("obs", (9, N, 4), "float32"), N)
    server = InferenceServer(agent, Eager(), given, choices=5, actors=2)
    server.publish(1, inference_tensors(make_agent(0)))
    yield server
    server.close()


def inputs(seed: int) -> tuple[torch.Tensor, ...]:
    """Return obs, time and noise of three environments."""
    generator = torch.Generator().manual_seed(seed)
    noise = example_inputs(make_agent(0), ArraySpec("obs", (9, N, 4), "float32"), N)[2]
    return (
        torch.randn(N, 4, generator=generator),
        torch.arange(N),
        torch.rand(noise.shape, generator=generator).to(noise.dtype),
    )


def expected(agent: Agent, tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        return respond(agent.policy, agent.normalizer.normalize_fn, False, *tensors)


def same(one: tuple[torch.Tensor, ...], two: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.allclose(a.to(b.dtype), b, atol=1e-6) for a, b in zip(one, two, strict=True))


def test_each_actor_gets_actions_of_the_published_policy(server: InferenceServer) -> None:
    """Two actors request repeatedly at the same time; neither receives the other's actions."""
    right: list[bool] = []

    def ask(index: int) -> None:
        policy = RemotePolicy(server.channels[index])
        bound = policy.bind(respond, None, None, False)
        for i in range(50):
            tensors = inputs(1000 * index + i)
            right.append(same(bound(*tensors), expected(make_agent(0), tensors)))

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 100 and all(right)


def test_the_version_is_that_of_the_first_response(server: InferenceServer) -> None:
    policy = RemotePolicy(server.channels[0])
    bound = policy.bind(respond, None, None, False)
    bound(*inputs(0))
    server.publish(2, inference_tensors(make_agent(1)))
    assert same(bound(*inputs(0)), expected(make_agent(1), inputs(0)))
    assert policy.take_version() == 1
    bound(*inputs(0))
    assert policy.take_version() == 2


def test_a_restarted_actor_gets_no_responses_to_its_predecessor(
    server: InferenceServer,
) -> None:
    for _ in range(2):
        os.write(server.channels[1].socket_fd, REQUEST)
    policy = RemotePolicy(server.channels[1])
    bound = policy.bind(respond, None, None, False)
    for i in range(5):
        assert same(bound(*inputs(i)), expected(make_agent(0), inputs(i)))
    assert not select.select([server.channels[1].socket_fd], [], [], 0.5)[0]  # no response is left
