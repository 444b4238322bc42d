"""Where an actor that chooses no actions of its own asks for them."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pgx.compiler.eager import Written
from pgx.core.engine import Bound
from pgx.rollouts.shared import Column, attach
from pgx.rollouts.stepper import respond

HELLO, PLEASE, THERE = b"h", b"?", b"."
ANSWERED = (
    "action",
    "executed",
    "log_prob",
    "after",
)  # what `respond` returns; after: the memory, where there is one


@dataclass(frozen=True)
class Desk:
    """Where an actor puts its observations and finds its actions."""

    number: int  # the actor's
    memory: int  # descriptor
    columns: list[Column]  # of all desks
    bell: int  # descriptor of the actor's end of a socket


class Asking:
    """In the place of an actor's engine: has the learner answer to observations.

    Args:
        desk: of this actor.
    """

    def __init__(self, desk: Desk) -> None:
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
        return Written(self._ask, (masked,))

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
