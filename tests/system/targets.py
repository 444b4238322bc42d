"""Functions that workers run in tests, in a module that they can import."""

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from pgx.core.errors import UserError
from pgx.distributed.shared_memory import ArraySpec
from pgx.rollouts.shared_parameters import SharedParameters


def echo(index: int, channel: "Connection[Any, Any]") -> None:
    """Send messages back with the index of the worker; obey some commands."""
    while True:
        message = channel.recv()
        match message:
            case "die after an answer":
                channel.send((index, message))
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(7)
            case "raise":
                raise KeyError("what was lost")
            case "complain":
                raise UserError("env.id: nothing of the kind")
            case "sleep":
                time.sleep(1e6)
            case "threads":
                channel.send(torch.get_num_threads())
            case _:
                channel.send((index, message))


def dies_at_once(index: int, channel: "Connection[Any, Any]") -> None:
    os._exit(5)


def reads_a_file(descriptor: int, index: int, channel: "Connection[Any, Any]") -> None:
    channel.send(os.pread(descriptor, 100, 0))
    channel.recv()


def leaves_word(folder: str, index: int, channel: "Connection[Any, Any]") -> None:
    """Report the start, and write a file when the channel is closed."""
    channel.send("here")
    try:
        channel.recv()
    finally:
        (Path(folder) / str(index)).touch()


SIZES = {"small": 3, "large": 300_000}  # of what `publishes` publishes


def publishes(memory: int, columns: list[ArraySpec], index: int, channel: "Connection[Any, Any]") -> None:
    """Publish versions of parameters, each filled with the number of the version."""
    shared, version = SharedParameters(memory, columns), 0
    while not channel.poll():
        version += 1
        shared.publish(version, {name: torch.full((size,), float(version)) for name, size in SIZES.items()})
