"""Hash the final parameters of short runs of every rule. A change that only moves code must not change them.

python scripts/parameter_hashes.py record            run all, write scripts/parameter_hashes.json
python scripts/parameter_hashes.py check             run all, compare with the file; exit code 1 if one differs
python scripts/parameter_hashes.py check --only ppo  runs whose name contains a text

Every rule trains 20,000 steps on CartPole-v1 and Walker2d-v4 (seed 0, not compiled), A3C with one worker and
IMPALA with lag 0; TRPO and PPO train on Walker2d-v4 compiled as well. Hashes depend on the processor and on the
versions of torch and the simulators, which the file records.
"""

import argparse
import hashlib
import json
import os
import platform
import runpy
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "scripts" / "parameter_hashes.json"
RULES = (
    "reinforce", "off_policy_reinforce", "actor_critic", "a2c", "npg", "trpo", "ppo", "ppo_kl", "mdpo", "ppg", "vtrace",
    "a3c", "impala",
)  # fmt: skip
ENVS = ("CartPole-v1", "Walker2d-v4")
DETERMINISTIC = {
    # Another process updates the normalizer statistics, at times that vary.
    "a3c": ("runner.workers=1", "env.normalize_obs=false", "env.scale_reward=false"),
    "impala": ("runner.trajectories=1", "runner.queue=1", "runner.workers=1"),  # lag 0
}
COMMON = ("seed=0", "trainer.total_steps=20000", "logger.sinks=[]", "logger.console=off")


@dataclass(frozen=True)
class Run:
    """Training run whose final parameters are hashed."""

    name: str
    overrides: tuple[str, ...]
    dataset_of: str | None = None  # id of the environment of its dataset


def runs() -> list[Run]:
    """Return all runs, in an order in which datasets exist before they are used."""
    plain = [
        Run(
            f"{env}/{rule}",
            (f"algo={rule}", f"env={env}", "trainer.compile=false", *DETERMINISTIC.get(rule, ())),
            env if rule == "off_policy_reinforce" else None,
        )
        for env in ENVS
        for rule in RULES
    ]
    compiled = [
        Run(
            f"Walker2d-v4/{rule}_compiled",
            (f"algo={rule}", "env=Walker2d-v4", "trainer.compile=true"),
        )
        for rule in ("trpo", "ppo")
    ]
    return plain + compiled


def pgx(arguments: list[str], log: Path) -> int:
    """Run `pgx` in a fork of this process; return its exit code."""
    child = os.fork()
    if child == 0:
        with log.open("a") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            sys.argv = ["pgx", *arguments]
            try:
                runpy.run_module("pgx", run_name="__main__", alter_sys=False)
            except SystemExit as ended:
                os._exit(int(ended.code or 0))
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train(run: Run, folder: Path) -> Path:
    """Train, and return the run's folder.

    Raises:
        RuntimeError: the command failed; the message ends with what it printed.
    """
    run_dir, log = folder / run.name, folder / f"{run.name.replace('/', '-')}.log"
    overrides = [*run.overrides, *COMMON, f"run_dir={run_dir}"]
    if run.dataset_of is not None:
        dataset = folder / f"{run.dataset_of}-episodes"
        source = folder / run.dataset_of / "reinforce"
        _succeed(["collect", str(source), "--episodes", "250", "--out", str(dataset)], log)
        overrides.append(f"dataset={dataset}")
    _succeed(["train", *overrides], log)
    return run_dir


def _succeed(arguments: list[str], log: Path) -> None:
    if (code := pgx(arguments, log)) != 0:
        raise RuntimeError(f"pgx {' '.join(arguments)}: exit code {code}\n{log.read_text()[-2000:]}")


def digest(run_dir: Path) -> str:
    """Return a hash of all tensors of the agent in a run's last checkpoint, in order and without names."""
    saved = torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)
    found = hashlib.sha256()
    for tensor in _tensors(saved["agent"]):
        found.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)


def machine() -> dict[str, str]:
    """Return the processor and the versions on which hashes depend."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        cpu = next(line for line in info.read_text().splitlines() if "model name" in line).split(": ")[1]
    packages = ("torch", "numpy", "gymnasium", "mujoco", "envpool")
    return {"cpu": cpu, "python": platform.python_version()} | {name: version(name) for name in packages}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["record", "check"])
    parser.add_argument("--only", default="", help="runs whose name contains this text")
    options = parser.parse_args()
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {"machine": machine(), "hashes": {}}
    if options.action == "check" and recorded["machine"] != machine():
        print(f"recorded on another machine, hashes may differ: {recorded['machine']}", file=sys.stderr)
    chosen = [run for run in runs() if options.only in run.name or run.name.endswith("/reinforce")]
    folder, different = Path(tempfile.mkdtemp(prefix="pgx-hashes-")), 0
    for run in chosen:
        began = time.monotonic()
        found = digest(train(run, folder))
        equal = recorded["hashes"].get(run.name) == found
        verdict = "recorded" if options.action == "record" else "equal" if equal else "DIFFERENT"
        different += verdict == "DIFFERENT"
        print(f"{run.name:34} {found}  {verdict}  {time.monotonic() - began:.1f} s", flush=True)
        if options.action == "record":
            recorded["hashes"][run.name] = found
    if options.action == "record":
        RECORD.write_text(json.dumps(recorded | {"machine": machine()}, indent=2, allow_nan=False) + "\n")
    shutil.rmtree(folder)
    return 1 if different else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
