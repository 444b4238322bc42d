"""The parent's side of one worker process: starting it, telling it, noticing that it died or hangs, ending it."""

import os
import select
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pgx.core.errors import RunError
from pgx.distributed.parent import LOOK, ending, reap, start
from pgx.distributed.stuck import hung
from pgx.envs.process_worker import CLOSE, FAILED, Failure, Share


class WorkerProcess:
    """A process that steps its share of the environments.

    A command is one byte on a socket, whose reader sleeps until it comes: of the ways to wake a process (socket, pipe,
    semaphore, eventfd) none was measurably better, all took 60 to 100 us for two workers and back, and this one
    tells of the other's death as well. Waiting awake would take a core from a worker.

    Args:
        share: which environments.
        lifeline: read end of a pipe of which this process alone has the other end.
        memory: descriptor of the shared rows.
        shown, shows: ends of a pipe for reading and writing, on which it says where it is when it hangs.
        timeout: seconds that it is waited for.
    """

    def __init__(
        self, share: Share, lifeline: int, memory: int, shown: int, shows: int, timeout: float
    ) -> None:
        self.share = share
        self.timeout = timeout
        self._shown = shown
        self.process, self.channel = start("pgx.envs.process_worker", [lifeline, memory, shows])
        self._answers = select.poll()
        self._answers.register(self.channel.fileno(), select.POLLIN)
        self.tell(share)

    def __str__(self) -> str:
        first, last = self.share.first, self.share.first + self.share.count - 1
        which = f"environment {first}" if first == last else f"environments {first} to {last}"
        return f"worker process {self.process.pid} ({which})"

    def command(self, byte: bytes) -> None:
        """One byte; what is told to the dead is noticed by whoever waits for the answer."""
        with suppress(BrokenPipeError, ConnectionResetError):
            os.write(self.channel.fileno(), byte)

    def tell(self, message: object) -> None:
        """An object; as `command`."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.channel.send(message)

    def wait(self, others: Sequence["WorkerProcess"], waited: float) -> float:
        """Until it has something to say.

        Time is counted in looks that found nothing: of a machine that slept, or of processes that were all stopped for
        a while, no more than one look is held against a worker.

        Args:
            others: asked at the same moment, and watched as well.
            waited: seconds that others were waited for since then.

        Returns:
            Seconds, with those that this one was waited for.

        Raises:
            RunError: it, or one of the others, has died; or the time is over and it has been killed.
        """
        look = min(LOOK, self.timeout)
        while not self._answers.poll(look * 1000):
            for worker in others:
                if worker.process.poll() is not None:
                    raise worker.death()
            waited += look
            if waited >= self.timeout:
                what = f"{self.share.env_id}: {self} has not answered"
                raise hung(self.process, self._shown, what, self.timeout)
        return waited

    def answer(self) -> Failure | None:
        """What a command led to, when it has been waited for; None: what was asked for."""
        try:
            byte = os.read(self.channel.fileno(), 1)
            if byte == FAILED:
                failure: Failure = self.channel.recv()
                return failure
        except (EOFError, ConnectionResetError):
            byte = b""
        if not byte:
            raise self.death()
        return None

    def hear(self) -> Any:
        """The object that it sent, when it has been waited for."""
        try:
            return self.channel.recv()
        except (EOFError, ConnectionResetError):
            raise self.death() from None

    def death(self) -> RunError:
        """How it came to its end, which its silence told of."""
        return RunError(f"{self.share.env_id}: {self} {ending(self.process)}")


def end(workers: Sequence[WorkerProcess], descriptors: Sequence[int], owner: int) -> None:
    """Close their environments; kill those that take too long.

    Args:
        workers: all of them.
        descriptors: what this process has open for them, the lifeline's write end among it.
        owner: id of the process that started them; nothing happens in a fork of it.
    """
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.command(CLOSE)
    reap([worker.process for worker in workers])
    for worker in workers:
        worker.channel.close()
    for descriptor in descriptors:
        os.close(descriptor)
