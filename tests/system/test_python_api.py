"""The Python API in scripts, threads, notebooks and long processes."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

import pgx
from pgx.training.callbacks import TrainingState

SMALL: dict[str, Any] = {
    "total_steps": 512,
    "progress": False,
    "overrides": ["env.num_envs=4", "trainer.compile=false", "logger.sinks=[]"],
}
ENVIRONMENT = """
import gymnasium
import pgx

class Slow(gymnasium.Wrapper):
    "Environment that is defined in the script itself."

def make():
    return Slow(gymnasium.make("CartPole-v1"))
"""


def run_script(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    path = folder / "script.py"
    path.write_text(ENVIRONMENT + code)
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, cwd=folder, timeout=120
    )


@pytest.mark.parametrize(
    ("algo", "overrides"),
    [
        ("ppo", ["runner.rollout_steps=32", "env.backend=processes"]),
        ("a3c", ["runner.workers=2"]),
        ("impala", ["runner.workers=2", "runner.rollout_steps=16"]),
    ],
)
def test_a_script_without_a_main_guard_uses_processes(
    tmp_path: Path, algo: str, overrides: list[str]
) -> None:
    """Also for an environment of the script itself, which no process can import."""
    wishes = [*SMALL["overrides"], *overrides]
    said = run_script(
        tmp_path,
        f'run = pgx.train("{algo}", make, total_steps=512, run_dir="run", overrides={wishes})\n'
        "print(run.status, run.evaluate(2).backend)\n",
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(f"{algo} on python/make: ") and "finished" in said.stdout.splitlines()[-1]
    assert said.stderr == ""


def test_workers_run_a_rule_of_the_script(tmp_path: Path) -> None:
    """It extends a rule of pgx, whose values it takes."""
    wishes = [*SMALL["overrides"], "runner=a3c", "runner.workers=2"]
    said = run_script(
        tmp_path,
        "from dataclasses import dataclass\n\n@dataclass\nclass Mine(pgx.A2C):\n    pass\n\n"
        'run = pgx.train(Mine(gae_lambda=0.5), "CartPole-v1", optimizer="rmsprop", critic_optimizer="rmsprop",\n'
        f"                total_steps=512, run_dir=None, progress=False, overrides={wishes})\n"
        'print(run.status, run.config["algo"]["gae_lambda"], pgx.A2C().discount == run.config["algo"]["discount"])\n',
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1] == "finished 0.5 True"


def test_a_script_loads_a_run_of_its_own_rule_and_the_command_line_says_where_it_is(tmp_path: Path) -> None:
    wishes = SMALL["overrides"]
    said = run_script(
        tmp_path,
        "from dataclasses import dataclass\n\n@dataclass\nclass Mine(pgx.A2C):\n    pass\n\n"
        'pgx.train(Mine(), "CartPole-v1", optimizer="rmsprop", critic_optimizer="rmsprop",\n'
        f'          total_steps=512, run_dir="run", progress=False, overrides={wishes})\n'
        'print(pgx.load("run").resume(total_steps=800, progress=False).status)\n',
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout == "finished\n"
    typed = subprocess.run(
        [sys.executable, "-m", "pgx", "eval", "run"], capture_output=True, text=True, cwd=tmp_path
    )
    assert typed.returncode == 2
    assert "Mine is defined in a script or notebook; continue there" in typed.stderr


def test_ctrl_c_ends_a_script_with_a_checkpoint(tmp_path: Path) -> None:
    """The program's own handler decides what follows: by default KeyboardInterrupt, as in any script."""
    path = tmp_path / "script.py"
    path.write_text(
        "import pgx\n"
        "try:\n"
        '    pgx.train("ppo", "CartPole-v1", total_steps=10_000_000, run_dir="run",\n'
        '              callbacks=[lambda state: print("iteration", flush=True)])\n'
        "except KeyboardInterrupt:\n"
        '    run = pgx.load("run")\n'
        '    print("caught", run.status, run.summary["steps"] == run.summary["checkpoint_steps"])\n'
    )
    process = subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "iteration\n":
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out.splitlines()[-1] == "caught interrupted True"


def test_a_thread_trains_without_signal_handlers() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    seen: list[Any] = []

    def look(state: TrainingState) -> None:
        seen.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])

    def train() -> None:
        seen.append(pgx.train("ppo", "CartPole-v1", run_dir=None, callbacks=[look], **_rollouts(32)))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join(timeout=60)
    assert seen[-1].status == "finished" and all(each == before for each in seen[:-1])


def _rollouts(steps: int) -> dict[str, Any]:
    return SMALL | {"overrides": [*SMALL["overrides"], f"runner.rollout_steps={steps}"]}


@pytest.mark.parametrize("backend", ["gymnasium", "processes", "envpool"])
def test_twenty_runs_in_one_process_leave_nothing(tmp_path: Path, backend: str) -> None:
    """Processes, files, threads and memory are those after the third run, which has loaded all libraries."""
    arguments = _rollouts(32)
    arguments["overrides"] += [f"env.backend={backend}", "trainer.eval_every=256", "trainer.eval_episodes=1"]
    marks: list[tuple[int, int, int]] = []
    resident: list[float] = []
    for number in range(23):
        folder = None if number % 2 else tmp_path / str(number)
        run = pgx.train("ppo", "CartPole-v1", seed=number, run_dir=folder, **arguments)
        run.evaluate(episodes=1)
        marks.append((_open_files(), _children(), threading.active_count()))
        resident.append(_resident())
    assert set(marks[3:]) == {marks[2]}
    assert resident[-1] - resident[2] < 20  # MB; each run had leaked less than one


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def _children() -> int:
    tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
    return sum(len((task / "children").read_text().split()) for task in tasks)


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_notebook_shows_one_panel_that_is_redrawn() -> None:
    notebook = nbformat.v4.new_notebook()
    code = (
        'import pgx\nrun = pgx.train("ppo", "CartPole-v1", total_steps=600, run_dir=None, '
        'overrides=["env.num_envs=4", "runner.rollout_steps=32", "trainer.compile=false"])'
    )
    notebook.cells = [nbformat.v4.new_code_cell(code), nbformat.v4.new_code_cell("run.plot()")]
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [output for output in notebook.cells[0].outputs if output.output_type == "display_data"]
    (panel,) = shown
    assert "600 steps" in panel.data["text/html"] and "KL" in panel.data["text/plain"]
    printed = "".join(o.text for o in notebook.cells[0].outputs if o.output_type == "stream")
    assert printed.startswith("ppo on CartPole-v1") and "\nfinished at " in printed
    assert "image/png" in notebook.cells[1].outputs[0].data
