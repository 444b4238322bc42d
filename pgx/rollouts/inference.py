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

import numpy as np
import torch
from torch import Tensor

from pgx.compiler.compiled import EagerFunction
from pgx.core.agent import Agent, distribution_at
from pgx.core.algorithm import Bound, Engine
from pgx.distributed.shared_memory import ArraySpec, allocate, attach
from pgx.rollouts.collector import respond
from pgx.rollouts.shared_parameters import as_tensors, inference_tensors, spec_of

SYNC, REQUEST, RESPONSE = b"h", b"?", b"."
RESULT_NAMES = (
    "action",
    "executed",
    "log_prob",
    "next_state",
)  # what `respond` returns; next_state: of a recurrent policy


@dataclass(frozen=True)
class InferenceChannel:
    """Where an actor puts its observations and finds its actions."""

    number: int  # the actor's
    memory: int  # descriptor
    columns: list[ArraySpec]  # of all desks
    socket_fd: int  # descriptor of the actor's end of a socket


class RemotePolicy:
    """In the place of an actor's engine: has the learner answer to observations.

    Args:
        desk: of this actor.
    """

    def __init__(self, channel: InferenceChannel) -> None:
        self._rows = channel_arrays(channel.number, as_tensors(attach(channel.memory, channel.columns)))
        self._socket_fd = channel.socket_fd
        self._version: int | None = None
        os.write(self._socket_fd, SYNC)
        while (
            self._read_byte() != SYNC
        ):  # what another actor at this desk asked for, and died before it heard
            pass

    def _read_byte(self) -> bytes:
        byte = os.read(self._socket_fd, 1)
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
        return EagerFunction(self._request, (masked,))

    def _request(self, masked: bool, *varying: Tensor) -> tuple[Tensor, ...]:
        self._rows["masked"].fill_(masked)
        for name, tensor in zip(
            argument_names(masked, "recurrent_state" in self._rows), varying, strict=True
        ):
            self._rows[name].copy_(tensor)
        os.write(self._socket_fd, REQUEST)
        self._read_byte()
        if self._version is None:
            self._version = int(self._rows["version"])
        return tuple(self._rows[name] for name in RESULT_NAMES if name in self._rows)

    def take_version(self) -> int:
        """Of the parameters that answered first since this was last asked: none was older."""
        version, self._version = self._version, None
        assert version is not None
        return version


def argument_names(masked: bool, recurrent: bool) -> list[str]:
    """What `respond` is given, in order."""
    return ["obs", "time", "noise", *["action_mask"] * masked, *["recurrent_state"] * recurrent]


def channel_arrays(number: int, shared: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The columns of one desk."""
    prefix = f"{number}."
    return {name.removeprefix(prefix): t for name, t in shared.items() if name.startswith(prefix)}


class InferenceServer:
    """A thread that answers all actors that wait with one forward pass, with the newest parameters.

    Args:
        agent: of its own; what it acts with is published to it.
        engine: runs the policy.
        blank: arguments of `respond` for one actor's environments, without a mask.
        choices: K, all the choices of an action; 0 for continuous ones.
        actors: how many.
    """

    def __init__(
        self, agent: Agent, engine: Engine, example_inputs: Sequence[Tensor], choices: int, actors: int
    ) -> None:
        self._agent = agent
        self._engine = engine
        self._inference_tensors = inference_tensors(agent)
        self._version = -1
        self._lock = threading.Lock()
        self._bound: dict[bool, Bound] = {}
        self.failure: BaseException | None = None  # what ended the thread
        columns = _columns(agent, example_inputs, choices, actors)
        memory = allocate()
        pairs = [socket.socketpair() for _ in range(actors)]
        self._sockets = [ours for ours, _ in pairs]
        self._theirs = [theirs for _, theirs in pairs]
        self._stop, self._stopped = socket.socketpair()
        # Both ends stay open here: an actor that takes the place of another finds the same descriptor.
        self.channels = [
            InferenceChannel(i, memory, columns, theirs.fileno()) for i, theirs in enumerate(self._theirs)
        ]
        self.descriptors = [memory, *(theirs.fileno() for theirs in self._theirs)]
        shared = as_tensors(attach(memory, columns))
        self._rows = [channel_arrays(i, shared) for i in range(actors)]
        sockets = [*self._sockets, *self._theirs, self._stop, self._stopped]
        self._release = weakref.finalize(self, _release, memory, sockets)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @torch.no_grad()
    def publish(self, version: int, parameters: Mapping[str, Tensor]) -> None:
        """What is answered with from now on."""
        with self._lock:
            self._version = version
            for name, tensor in self._inference_tensors.items():
                tensor.copy_(parameters[name])

    def _serve(self) -> None:
        poll = select.poll()
        numbers = {socket_fd.fileno(): i for i, socket_fd in enumerate(self._sockets)}
        for descriptor in (*numbers, self._stopped.fileno()):
            poll.register(descriptor, select.POLLIN)
        try:
            while True:
                ready = [descriptor for descriptor, _ in poll.poll()]
                if self._stopped.fileno() in ready:
                    return
                waiting: dict[bool, list[int]] = {}
                for descriptor in ready:
                    if os.read(descriptor, 1) == SYNC:
                        os.write(descriptor, SYNC)
                    else:
                        number = numbers[descriptor]
                        waiting.setdefault(bool(self._rows[number]["masked"]), []).append(number)
                for masked, actors in waiting.items():
                    self._answer(masked, actors)
        except BaseException as error:
            self.failure = error

    @torch.inference_mode()
    def _answer(self, masked: bool, actors: list[int]) -> None:
        channels = [self._rows[actor] for actor in actors]
        names = argument_names(masked, "recurrent_state" in channels[0])
        varying = [torch.cat([channel[name] for channel in channels]) for name in names]
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
        answers = dict(zip(RESULT_NAMES, results, strict=False))
        size = len(channels[0]["time"])
        for i, channel in enumerate(channels):
            for name, result in answers.items():
                channel[name].copy_(result[i * size : (i + 1) * size])
            channel["version"].fill_(version)
            os.write(self._sockets[actors[i]].fileno(), RESPONSE)

    def close(self) -> None:
        """End the thread; again does nothing."""
        if self._release.alive:
            self._stop.send(RESPONSE)
            self._thread.join()
            self._release()


def example_inputs(agent: Agent, obs: ArraySpec, num_envs: int) -> tuple[Tensor, ...]:
    """Arguments of `respond` for n environments: obs, time, noise, and the state of a recurrent policy.

    Args:
        agent: on the processor.
        obs: of a trajectory's observations [T + 1, n, ...].
        num_envs: n.
    """
    device = torch.device("cpu")
    seen, time = (
        torch.from_numpy(np.zeros(obs.shape[1:], obs.dtype)),
        torch.zeros(num_envs, dtype=torch.int64),
    )
    state = agent.initial_recurrent_state(num_envs, device)
    with torch.inference_mode():
        distribution, _ = distribution_at(agent.policy, agent.observe(seen, time, None, state))
        noise = distribution.noise(1, torch.Generator())[0]
    return (seen, time, noise) if state is None else (seen, time, noise, state)


def _columns(agent: Agent, given: Sequence[Tensor], choices: int, actors: int) -> list[ArraySpec]:
    """Of all desks."""
    with torch.inference_mode():
        answers = respond(agent.policy, agent.normalizer.normalize_fn, False, *given)
    named = dict(zip(argument_names(False, len(given) > 3), given, strict=True))
    named |= dict(zip(RESULT_NAMES, answers, strict=False))
    named |= {
        "action_mask": torch.ones(len(given[0]), choices, dtype=torch.bool),
        "masked": torch.zeros(1, dtype=torch.bool),
        "version": torch.zeros(1, dtype=torch.int64),
    }
    return [spec_of(f"{actor}.{name}", tensor) for actor in range(actors) for name, tensor in named.items()]


def _release(memory: int, sockets: list[socket.socket]) -> None:
    os.close(memory)
    for each in sockets:
        each.close()
