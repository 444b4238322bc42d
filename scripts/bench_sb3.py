"""Measure Stable-Baselines3 and sb3-contrib on the same work as pgx; print a JSON line.

It needs a separate environment:

    pip install 'stable-baselines3==2.9.2' 'sb3-contrib==2.9.2' 'gymnasium[mujoco]' 'envpool==1.2.5'
    python scripts/bench_sb3.py run --algo trpo --vec envpool --num-envs 8 --steps 40960 --seed 0

run: environment steps per second. update: seconds of one `train()`. until: time to reach a training return.
memory: peak memory; writes the imported modules to --file. startup: time of the first step.
losses: writes 20 minibatch steps with their losses to --file.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.clock import Stamp, steps_per_second
from benchmark.imports import resident_mb
from benchmark.machine import cores
from benchmark.sb3_losses import write
from benchmark.sb3_models import environments, model
from stable_baselines3.common.callbacks import BaseCallback

RECENT = 20  # episodes in the mean that is the training return, as in pgx


class Watch(BaseCallback):
    """Callback that records when each iteration ended and the raw returns of the last episodes.

    A rollout begins when the previous iteration, including its update, has ended.
    """

    def __init__(self, enough: Callable[["Watch"], bool]) -> None:
        super().__init__()
        self.enough = enough
        self.stamps: list[Stamp] = []
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.stop = False

    def _stamp(self) -> None:
        if self.stop:  # the step that ends training belongs to no iteration
            return
        self.stamps.append((self.num_timesteps, time.monotonic()))
        self.stop = self.enough(self)

    def _on_rollout_start(self) -> None:
        self._stamp()

    def _on_training_end(self) -> None:
        self._stamp()

    def _on_step(self) -> bool:
        if self.stop:
            return False
        self.recent.extend(info["episode"]["r"] for info in self.locals["infos"] if "episode" in info)
        return True

    @property
    def training_return(self) -> float | None:
        return float(sum(self.recent)) / RECENT if len(self.recent) == RECENT else None


def never(watch: Watch) -> bool:
    return False


def learner(options: argparse.Namespace) -> Any:
    envs = environments(options.env, options.vec, options.num_envs, options.threads, options.seed)
    return model(options.algo, envs, options.batch, options.minibatch, options.seed)


def run(options: argparse.Namespace) -> dict[str, object]:
    watch = Watch(never)
    learner(options).learn(options.steps, callback=watch)
    return {
        "steps_per_second": steps_per_second(watch.stamps, options.warm_up),
        "return": watch.training_return,
    }


def update(options: argparse.Namespace) -> dict[str, object]:
    ppo, seconds = learner(options), []
    train = ppo.train

    def timed() -> None:
        started = time.perf_counter()
        train()
        seconds.append(time.perf_counter() - started)

    ppo.train = timed
    ppo.learn((1 + options.updates) * options.batch)
    return {"seconds": statistics.median(seconds[1:]), "first": seconds[0], "updates": len(seconds) - 1}


def until(options: argparse.Namespace) -> dict[str, object]:
    deadline = time.monotonic() + options.seconds

    def reached(watch: Watch) -> bool:
        return watch.training_return is not None and watch.training_return >= options.reach

    watch = Watch(lambda watch: reached(watch) or time.monotonic() > deadline)
    learner(options).learn(options.steps, callback=watch)
    steps, moment = watch.stamps[-1]
    return {
        "reached": reached(watch),
        "at": moment,
        "steps": steps,
        "loop_seconds": moment - watch.stamps[0][1],
        "return": watch.training_return,
    }


def memory(options: argparse.Namespace) -> dict[str, object]:
    learner(options).learn(options.steps)
    peak = resident_mb("VmHWM")
    names = [name for name in sys.modules if name.split(".")[0] not in ("__main__", "benchmark")]
    Path(options.file).write_text(json.dumps(names))
    return {"peak_mb": peak}


def startup(options: argparse.Namespace) -> dict[str, object]:
    watch = Watch(lambda watch: True)
    learner(options).learn(options.num_envs, callback=watch)
    return {"at": watch.stamps[0][1]}


def losses(options: argparse.Namespace) -> dict[str, object]:
    return write(Path(options.file), options.env, options.threads, options.seed)


MEASURES = {function.__name__: function for function in (run, update, until, memory, startup, losses)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("--algo", choices=["ppo", "trpo", "a2c"], default="ppo")
    parser.add_argument("--env", default="Walker2d-v4")
    parser.add_argument("--vec", choices=["dummy", "envpool"], default="dummy")
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=cores(), help="threads of EnvPool")
    parser.add_argument("--batch", type=int, default=2048, help="rows of an update")
    parser.add_argument(
        "--minibatch", type=int, default=64, help="rows of a minibatch of PPO or of TRPO's critic"
    )
    parser.add_argument("--steps", type=int, default=40_960, help="environment steps")
    parser.add_argument(
        "--warm-up", type=int, default=4096, help="run: environment steps before the clock starts"
    )
    parser.add_argument(
        "--updates", type=int, default=5, help="update: timed updates, after an untimed first one"
    )
    parser.add_argument("--reach", type=float, default=1500.0, help="until: return to reach")
    parser.add_argument("--seconds", type=float, default=1800.0, help="until: time limit")
    parser.add_argument("--file", help="memory, losses: file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(MEASURES[options.what](options)), flush=True)
    os._exit(0)  # EnvPool's threads may block a normal exit


if __name__ == "__main__":
    main()
