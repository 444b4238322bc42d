"""Central inference: the learner's process chooses the actions of actors that only step environments.

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
from pgx.rollouts.shared_parameters import array_spec, as_tensors, inference_tensors

SYNC, REQUEST, RESPONSE = b"h", b"?", b"."  # bytes on the sockets
_RESULTS = "action", "executed", "log_prob", "next_state"  # of `respond`; next_state: of recurrent policies


@dataclass(frozen=True)
class InferenceChannel:
    """Shared arrays and socket by which one actor sends observations and receives actions."""

    index: int  # of the actor
    memory: int  # descriptor
    columns: list[ArraySpec]  # of all channels
    socket_fd: int  # descriptor of the actor's end of a socket


class RemotePolicy:
    """Engine of an actor whose actions the learner's process chooses.

    Args:
        channel: channel of the actor.
    """

    def __init__(self, channel: InferenceChannel) -> None:
        self._arrays = _channel_arrays(channel.index, as_tensors(attach(channel.memory, channel.columns)))
        self._socket_fd = channel.socket_fd
        self._version: int | None = None
        os.write(self._socket_fd, SYNC)
        while self._read_byte() != SYNC:  # responses to a previous actor on this channel, which exited
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
        """Return `respond` with the learner's policy and normalizer instead of the given ones."""
        assert function is respond
        _, _, has_mask = fixed
        return EagerFunction(self._request, (has_mask,))

    def _request(self, has_mask: bool, *inputs: Tensor) -> tuple[Tensor, ...]:
        self._arrays["has_mask"].fill_(has_mask)
        names = _input_names(has_mask, "recurrent_state" in self._arrays)
        for name, tensor in zip(names, inputs, strict=True):
            self._arrays[name].copy_(tensor)
        os.write(self._socket_fd, REQUEST)
        self._read_byte()
        if self._version is None:
            self._version = int(self._arrays["version"])
        return tuple(self._arrays[name] for name in _RESULTS if name in self._arrays)

    def take_version(self) -> int:
        """Return the version of the parameters of the first response since the previous call, which is the oldest."""
        version, self._version = self._version, None
        assert version is not None
        return version


def _input_names(has_mask: bool, recurrent: bool) -> list[str]:
    """Return the names of the tensors that `respond` takes, in order."""
    return ["obs", "time", "noise", *["action_mask"] * has_mask, *["recurrent_state"] * recurrent]


def _channel_arrays(index: int, shared: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the arrays of one channel."""
    prefix = f"{index}."
    return {name.removeprefix(prefix): t for name, t in shared.items() if name.startswith(prefix)}


class InferenceServer:
    """Thread that answers all waiting actors with one forward pass, with the latest parameters.

    Args:
        agent: used by the server only; `publish` sets its parameters.
        engine: executes the policy.
        example_inputs: arguments of `respond` for one actor's environments, without a mask.
        choices: K, all choices of an action; 0 for continuous actions.
        actors: number of actors.
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
        self.failure: BaseException | None = None  # the exception that ended the thread
        columns = _columns(agent, example_inputs, choices, actors)
        memory = allocate()
        pairs = [socket.socketpair() for _ in range(actors)]
        self._sockets = [server for server, _ in pairs]
        # The actors' ends stay open here, so that a restarted actor finds the same descriptor.
        actor_sockets = [actor for _, actor in pairs]
        self._stop, self._stopped = socket.socketpair()
        self.channels = [
            InferenceChannel(i, memory, columns, end.fileno()) for i, end in enumerate(actor_sockets)
        ]
        self.descriptors = [memory, *(end.fileno() for end in actor_sockets)]
        shared = as_tensors(attach(memory, columns))
        self._arrays = [_channel_arrays(i, shared) for i in range(actors)]
        sockets = [*self._sockets, *actor_sockets, self._stop, self._stopped]
        self._release = weakref.finalize(self, _release, memory, sockets)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @torch.no_grad()
    def publish(self, version: int, parameters: Mapping[str, Tensor]) -> None:
        """Set the parameters used for inference."""
        with self._lock:
            self._version = version
            for name, tensor in self._inference_tensors.items():
                tensor.copy_(parameters[name])

    def _serve(self) -> None:
        poll = select.poll()
        actors = {end.fileno(): i for i, end in enumerate(self._sockets)}
        for descriptor in (*actors, self._stopped.fileno()):
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
                        actor = actors[descriptor]
                        waiting.setdefault(bool(self._arrays[actor]["has_mask"]), []).append(actor)
                for has_mask, group in waiting.items():
                    self._answer(has_mask, group)
        except BaseException as error:
            self.failure = error

    @torch.inference_mode()
    def _answer(self, has_mask: bool, actors: list[int]) -> None:
        channels = [self._arrays[actor] for actor in actors]
        names = _input_names(has_mask, "recurrent_state" in channels[0])
        inputs = [torch.cat([channel[name] for channel in channels]) for name in names]
        with self._lock:
            if has_mask not in self._bound:
                self._bound[has_mask] = self._engine.bind(
                    respond,
                    self._agent.policy,
                    self._agent.normalizer.normalize_fn,
                    has_mask,
                    ragged=range(len(inputs)),
                )
            outputs = self._bound[has_mask](*inputs)
            version = self._version
        results = dict(zip(_RESULTS, outputs, strict=False))
        rows = len(channels[0]["time"])
        for i, channel in enumerate(channels):
            for name, result in results.items():
                channel[name].copy_(result[i * rows : (i + 1) * rows])
            channel["version"].fill_(version)
            os.write(self._sockets[actors[i]].fileno(), RESPONSE)

    def close(self) -> None:
        """Stop the thread. Can be called repeatedly."""
        if self._release.alive:
            self._stop.send(RESPONSE)
            self._thread.join()
            self._release()


def example_inputs(agent: Agent, obs: ArraySpec, num_envs: int) -> tuple[Tensor, ...]:
    """Return arguments of `respond` for n environments: obs, time, noise, and the state of a recurrent policy.

    Args:
        agent: on the CPU.
        obs: observations of a trajectory [T + 1, n, ...].
        num_envs: n.
    """
    raw_obs = torch.from_numpy(np.zeros(obs.shape[1:], obs.dtype))
    time = torch.zeros(num_envs, dtype=torch.int64)
    state = agent.initial_recurrent_state(num_envs, torch.device("cpu"))
    with torch.inference_mode():
        distribution, _ = distribution_at(agent.policy, agent.observe(raw_obs, time, None, state))
        noise = distribution.noise(1, torch.Generator())[0]
    return (raw_obs, time, noise) if state is None else (raw_obs, time, noise, state)


def _columns(agent: Agent, inputs: Sequence[Tensor], choices: int, actors: int) -> list[ArraySpec]:
    """Return the layout in shared memory of all channels."""
    with torch.inference_mode():
        outputs = respond(agent.policy, agent.normalizer.normalize_fn, False, *inputs)
    tensors = dict(zip(_input_names(False, len(inputs) > 3), inputs, strict=True))
    tensors |= dict(zip(_RESULTS, outputs, strict=False))
    tensors |= {
        "action_mask": torch.ones(len(inputs[0]), choices, dtype=torch.bool),
        "has_mask": torch.zeros(1, dtype=torch.bool),
        "version": torch.zeros(1, dtype=torch.int64),
    }
    return [
        array_spec(f"{actor}.{name}", tensor) for actor in range(actors) for name, tensor in tensors.items()
    ]


def _release(memory: int, sockets: list[socket.socket]) -> None:
    os.close(memory)
    for end in sockets:
        end.close()
