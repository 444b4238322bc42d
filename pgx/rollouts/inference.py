"""Where an actor that chooses no actions of its own asks for them.

Actions chosen in the learner's process for actors that only step environments, many at once.

Source: Espeholt et al., "SEED RL: scalable and efficient deep-RL with accelerated central inference", 2020.
"""

import os
import select
import socket
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pgx.compiler.eager import EagerFunction
from pgx.core.agent import Agent, distribution_at
from pgx.core.algorithm import Bound, Engine
from pgx.rollouts.collector import respond
from pgx.rollouts.shared import Column, acting_tensors, allocate, attach

HELLO, PLEASE, THERE = b"h", b"?", b"."
ANSWERED = (
    "action",
    "executed",
    "log_prob",
    "after",
)  # what `respond` returns; after: the memory, where there is one


@dataclass(frozen=True)
class InferenceChannel:
    """Where an actor puts its observations and finds its actions."""

    number: int  # the actor's
    memory: int  # descriptor
    columns: list[Column]  # of all desks
    bell: int  # descriptor of the actor's end of a socket


class RemotePolicy:
    """In the place of an actor's engine: has the learner answer to observations.

    Args:
        desk: of this actor.
    """

    def __init__(self, desk: InferenceChannel) -> None:
        self._rows = desk_columns(desk.number, attach(desk.memory, desk.columns))
        self._bell = desk.bell
        self._version: int | None = None
        os.write(self._bell, HELLO)
        while self._heard() != HELLO:  # what another actor at this desk asked for, and died before it heard
            pass

    def _heard(self) -> bytes:
        byte = os.read(self._bell, 1)
        if not byte:
            raise EOFError
        return byte

    def bind(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *fixed: Any,
        rows: int | None = None,
        ragged: Sequence[int] = (),
    ) -> Bound:
        """`respond`, with the learner's policy and lens in place of those given."""
        assert function is respond
        _, _, masked = fixed
        return EagerFunction(self._ask, (masked,))

    def _ask(self, masked: bool, *varying: Tensor) -> tuple[Tensor, ...]:
        self._rows["masked"].fill_(masked)
        for name, tensor in zip(asked(masked, "memory" in self._rows), varying, strict=True):
            self._rows[name].copy_(tensor)
        os.write(self._bell, PLEASE)
        self._heard()
        if self._version is None:
            self._version = int(self._rows["version"])
        return tuple(self._rows[name] for name in ANSWERED if name in self._rows)

    def take_version(self) -> int:
        """Of the parameters that answered first since this was last asked: none was older."""
        version, self._version = self._version, None
        assert version is not None
        return version


def asked(masked: bool, remembers: bool) -> list[str]:
    """What `respond` is given, in order."""
    return ["obs", "time", "noise", *["action_mask"] * masked, *["memory"] * remembers]


def desk_columns(number: int, shared: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The columns of one desk."""
    prefix = f"{number}."
    return {name.removeprefix(prefix): t for name, t in shared.items() if name.startswith(prefix)}


class InferenceServer:
    """A thread that answers all actors that wait with one forward pass, with the newest parameters.

    Args:
        agent: of its own; what it acts with is published to it.
        engine: runs the policy.
        blank: arguments of `respond` for one actor's environments: obs, time, noise, and memory where there is one.
        choices: K, all the choices of an action; 0 for continuous ones.
        actors: how many.
    """

    def __init__(
        self, agent: Agent, engine: Engine, blank: Sequence[Tensor], choices: int, actors: int
    ) -> None:
        self._agent = agent
        self._engine = engine
        self._acting = acting_tensors(agent)
        self._version = -1
        self._lock = threading.Lock()
        self._bound: dict[bool, Bound] = {}
        self.failure: BaseException | None = None  # what ended the thread
        columns = _columns(agent, blank, choices, actors)
        memory = allocate()
        pairs = [socket.socketpair() for _ in range(actors)]
        self._bells = [ours for ours, _ in pairs]
        self._theirs = [theirs for _, theirs in pairs]
        self._stop, self._stopped = socket.socketpair()
        # Both ends stay open here: an actor that takes the place of another finds the same descriptor.
        self.desks = [
            InferenceChannel(i, memory, columns, theirs.fileno()) for i, theirs in enumerate(self._theirs)
        ]
        self.descriptors = [memory, *(theirs.fileno() for theirs in self._theirs)]
        shared = attach(memory, columns)
        self._rows = [desk_columns(i, shared) for i in range(actors)]
        sockets = [*self._bells, *self._theirs, self._stop, self._stopped]
        self._release = weakref.finalize(self, _release, memory, sockets)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @torch.no_grad()
    def publish(self, version: int, parameters: Mapping[str, Tensor]) -> None:
        """What is answered with from now on."""
        with self._lock:
            self._version = version
            for name, tensor in self._acting.items():
                tensor.copy_(parameters[name])

    def _serve(self) -> None:
        poll = select.poll()
        numbers = {bell.fileno(): i for i, bell in enumerate(self._bells)}
        for descriptor in (*numbers, self._stopped.fileno()):
            poll.register(descriptor, select.POLLIN)
        try:
            while True:
                ready = [descriptor for descriptor, _ in poll.poll()]
                if self._stopped.fileno() in ready:
                    return
                waiting: dict[bool, list[int]] = {}
                for descriptor in ready:
                    if os.read(descriptor, 1) == HELLO:
                        os.write(descriptor, HELLO)
                    else:
                        number = numbers[descriptor]
                        waiting.setdefault(bool(self._rows[number]["masked"]), []).append(number)
                for masked, actors in waiting.items():
                    self._answer(masked, actors)
        except BaseException as error:
            self.failure = error

    @torch.inference_mode()
    def _answer(self, masked: bool, actors: list[int]) -> None:
        desks = [self._rows[actor] for actor in actors]
        names = asked(masked, "memory" in desks[0])
        varying = [torch.cat([desk[name] for desk in desks]) for name in names]
        with self._lock:
            if masked not in self._bound:
                self._bound[masked] = self._engine.bind(
                    respond,
                    self._agent.policy,
                    self._agent.normalizer.normalize_fn,
                    masked,
                    ragged=range(len(varying)),
                )
            results = self._bound[masked](*varying)
            version = self._version
        answers = dict(zip(ANSWERED, results, strict=False))
        size = len(desks[0]["time"])
        for i, desk in enumerate(desks):
            for name, result in answers.items():
                desk[name].copy_(result[i * size : (i + 1) * size])
            desk["version"].fill_(version)
            os.write(self._bells[actors[i]].fileno(), THERE)

    def close(self) -> None:
        """End the thread; again does nothing."""
        if self._release.alive:
            self._stop.send(THERE)
            self._thread.join()
            self._release()


def blank(agent: Agent, obs: Column, num_envs: int) -> tuple[Tensor, ...]:
    """Arguments of `respond` for n environments: obs, time, noise, and the memory of a policy with one.

    Args:
        agent: on the processor.
        obs: of a trajectory's observations [T + 1, n, ...].
        num_envs: n.
    """
    device = torch.device("cpu")
    seen, time = torch.zeros(obs.shape[1:], dtype=obs.dtype), torch.zeros(num_envs, dtype=torch.int64)
    memory = agent.blank_memory(num_envs, device)
    with torch.inference_mode():
        distribution, _ = distribution_at(agent.policy, agent.observe(seen, time, None, memory))
        noise = distribution.noise(1, torch.Generator())[0]
    return (seen, time, noise) if memory is None else (seen, time, noise, memory)


def _columns(agent: Agent, given: Sequence[Tensor], choices: int, actors: int) -> list[Column]:
    """Of all desks."""
    with torch.inference_mode():
        answers = respond(agent.policy, agent.normalizer.normalize_fn, False, *given)
    named = dict(zip(asked(False, len(given) > 3), given, strict=True))
    named |= dict(zip(ANSWERED, answers, strict=False))
    named |= {
        "action_mask": torch.ones(len(given[0]), choices, dtype=torch.bool),
        "masked": torch.zeros(1, dtype=torch.bool),
        "version": torch.zeros(1, dtype=torch.int64),
    }
    return [
        Column(f"{actor}.{name}", tuple(tensor.shape), tensor.dtype)
        for actor in range(actors)
        for name, tensor in named.items()
    ]


def _release(memory: int, sockets: list[socket.socket]) -> None:
    os.close(memory)
    for each in sockets:
        each.close()
