"""Actions chosen in the learner's process: they are the policy's, for whoever asks, however many ask at once."""

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


def made(seed: int) -> Agent:
    plan = AgentSpec(MLP, NoCritic(), normalize_obs=True, obs_clip=10.0, seed=seed)
    return plan.make(Continuous((4,)), Discrete(5), CPU)


@pytest.fixture
def service() -> Iterator[InferenceServer]:
    agent = made(0)
    given = example_inputs(agent, ArraySpec("obs", (9, N, 4), "float32"), N)
    service = InferenceServer(agent, Eager(), given, choices=5, actors=2)
    service.publish(1, inference_tensors(made(0)))
    yield service
    service.close()


def asked(seed: int) -> tuple[torch.Tensor, ...]:
    """obs, time and noise of three environments."""
    generator = torch.Generator().manual_seed(seed)
    noise = example_inputs(made(0), ArraySpec("obs", (9, N, 4), "float32"), N)[2]
    return (
        torch.randn(N, 4, generator=generator),
        torch.arange(N),
        torch.rand(noise.shape, generator=generator).to(noise.dtype),
    )


def own(agent: Agent, question: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        return respond(agent.policy, agent.normalizer.normalize_fn, False, *question)


def same(one: tuple[torch.Tensor, ...], two: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.allclose(a.to(b.dtype), b, atol=1e-6) for a, b in zip(one, two, strict=True))


def test_results_are_the_published_policy_s_for_each_who_asks(service: InferenceServer) -> None:
    """Two ask at once, again and again; none gets the other's."""
    right: list[bool] = []

    def ask(number: int) -> None:
        channel = RemotePolicy(service.channels[number])
        bound = channel.bind(respond, None, None, False)
        for i in range(50):
            question = asked(1000 * number + i)
            right.append(same(bound(*question), own(made(0), question)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 100 and all(right)


def test_the_version_is_that_of_the_first_answer(service: InferenceServer) -> None:
    channel = RemotePolicy(service.channels[0])
    bound = channel.bind(respond, None, None, False)
    bound(*asked(0))
    service.publish(2, inference_tensors(made(1)))
    assert same(bound(*asked(0)), own(made(1), asked(0)))
    assert channel.take_version() == 1
    bound(*asked(0))
    assert channel.take_version() == 2


def test_what_one_asked_for_and_did_not_live_to_hear_is_not_told_to_the_next(
    service: InferenceServer,
) -> None:
    for _ in range(2):
        os.write(service.channels[1].socket_fd, REQUEST)
    channel = RemotePolicy(service.channels[1])
    bound = channel.bind(respond, None, None, False)
    for i in range(5):
        assert same(bound(*asked(i)), own(made(0), asked(i)))
    assert not select.select([service.channels[1].socket_fd], [], [], 0.5)[
        0
    ]  # an answer each, and none too many
