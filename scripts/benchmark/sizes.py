"""How much of everything: enough for figures, or just enough to see that every job works."""

from dataclasses import dataclass

ENV = "Walker2d-v4"
BARE_ENVS = (8, 16, 32, 64)


@dataclass(frozen=True)
class Sizes:
    """What the jobs are given."""

    bare_seconds: float  # of stepping
    warm_up: int  # environment steps before the clock of a rate
    steps: int  # environment steps of a rate, the warm-up included
    a2c_steps: int  # the same of A2C, of which pgx writes a row each 2,000 steps
    updates: int  # timed, after a first one that is not
    batches: tuple[int, int]  # rows of trpo_update
    memory_steps: int  # environment steps
    reach: float  # training return of until
    until_steps: int  # environment steps that until ends after
    until_seconds: float  # that until ends after, start-up included

    def steps_of(self, algo: str) -> int:
        return self.a2c_steps if algo == "a2c" else self.steps


FULL = Sizes(
    bare_seconds=3.0,
    warm_up=4096,
    steps=40_960,
    a2c_steps=40_960,
    updates=7,
    batches=(2048, 20_000),
    memory_steps=60_000,
    reach=1500.0,
    until_steps=3_000_000,
    until_seconds=2400.0,
)
QUICK = Sizes(
    bare_seconds=0.3,
    warm_up=2048,
    steps=4_096,
    a2c_steps=8_000,
    updates=1,
    batches=(2048, 4000),
    memory_steps=4_096,
    reach=10.0,
    until_steps=20_000,
    until_seconds=60.0,
)
