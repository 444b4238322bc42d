"""Sizes of the jobs: for measurements, or small ones that only test the jobs."""

from dataclasses import dataclass

ENV = "Walker2d-v4"
BARE_ENVS = (8, 16, 32, 64)


@dataclass(frozen=True)
class Sizes:
    """Sizes of all jobs."""

    bare_seconds: float  # of stepping
    warm_up: int  # environment steps before the clock of a rate starts
    steps: int  # environment steps of a rate, including the warm-up
    a2c_steps: int  # the same for A2C, for which pgx writes a row every 2,000 steps
    updates: int  # timed updates, after an untimed first one
    batches: tuple[int, int]  # rows of trpo_update
    memory_steps: int  # environment steps
    reach: float  # training return to reach in `until`
    until_steps: int  # maximum environment steps of `until`
    until_seconds: float  # maximum seconds of `until`, including start-up

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
