"""One job of a sweep, in whichever process a launcher has put it."""

import os
import socket
import time
import traceback
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path

from omegaconf import DictConfig

from pgx.cli.commands.one_run import announce, load_config, outcome, resumed
from pgx.config.check import validate
from pgx.config.compose import compose
from pgx.core.extras import import_problem
from pgx.core.stopping import StopAtCheckpoint
from pgx.core.streams import guarded, report_and_go_on
from pgx.runs.lock import HeldError
from pgx.sweeps.plan import STOP, Plan, read_plan
from pgx.sweeps.progress import KEPT, clear, look, resumable, write_failure
from pgx.sweeps.search import Trial, settle
from pgx.training.build import build
from pgx.training.trainer import OnProgress

CONSOLE = "console.log"  # what a job writes that has no terminal of its own


def this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def run_job(folder: Path, launcher: str, cfg: DictConfig) -> None:
    """Begin a job or go on with it; how it ended stands in its folder, and nothing is raised.

    A module-level function of plain values: launchers pickle it.

    Args:
        folder: the sweep's.
        launcher: the process that started the sweep, as `this_process` names it.
        cfg: the job's config, as the launcher composed it.
    """
    plan, run_dir = read_plan(folder), Path(cfg.run_dir)
    number = next(i for i, job in enumerate(plan.jobs) if job.run_dir == run_dir)
    apart = launcher != this_process()
    if (folder / STOP).exists() or look(run_dir).state in ("running", *KEPT):
        return
    with guarded(report_and_go_on):
        _carry_out(plan, folder, number, apart, cfg)


def _carry_out(plan: Plan, folder: Path, number: int, apart: bool, cfg: DictConfig) -> None:
    """Run a job, note how it ended, and say so.

    Args:
        plan, folder: of the sweep.
        number: of the job.
        apart: the job has a process of its own, so that its console is a file.
        cfg: of the job, as the launcher composed it.
    """
    job, run_dir, said = plan.jobs[number], plan.jobs[number].run_dir, "stopped"
    try:
        with ExitStack() as stack:
            if apart:
                console = stack.enter_context(
                    (run_dir / CONSOLE).open("a", encoding="utf-8", errors="backslashreplace")
                )
                stack.enter_context(redirect_stdout(console))
                stack.enter_context(redirect_stderr(console))
            said = _run(plan, folder, number, cfg)
    except HeldError as error:
        said = str(error)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        if os.environ.get("PGX_DEBUG") == "1":
            traceback.print_exc()
        said = f"failed: {error}"
        if look(run_dir).state != "failed":
            write_failure(run_dir, f"{type(error).__name__}: {error}")
    # Where Optuna cannot be imported, the process that started the sweep tells the study from the run's folder.
    if plan.search and not said.startswith("stopped") and import_problem("optuna") is None:
        settle(folder, plan.search, [job])
    print(f"[{number + 1}/{len(plan.jobs)}] {plan.label(job)}: {said}", flush=True)


def _run(plan: Plan, folder: Path, number: int, placed: DictConfig) -> str:
    """Train from the last checkpoint or from the beginning; how it ended, in words."""
    run_dir = Path(placed.run_dir)
    trial = Trial(folder, plan.search, run_dir, number) if plan.search else None
    again = resumable(run_dir)
    if again:
        cfg = load_config(run_dir)
    else:
        clear(run_dir)
        cfg = compose(list(trial.overrides)) if trial else placed
    if trial:
        trial.describe(cfg.seed)
    # What belongs to this machine and this launcher rather than to the run.
    cfg.run_dir, cfg.env.num_threads = placed.run_dir, placed.env.num_threads
    config = validate(cfg)
    trainer = resumed(config) if again else build(config)
    trainer.on_progress = _watch(folder, trial.pruning() if trial else None)
    announce(trainer, config)
    started = time.monotonic()
    return outcome(trainer.train(), time.monotonic() - started)


def _watch(folder: Path, pruning: OnProgress | None) -> OnProgress:
    """Ends a run, after the iteration under way, when the sweep is to stop.

    As if killed: at its last checkpoint rather than with one of its own, which would be an episode boundary that
    the run has not when it is left alone. So it ends with the same bits however often its sweep was stopped.
    """
    stop = folder / STOP

    def on_progress(steps: int, recent_return: float | None) -> bool:
        if stop.exists():
            raise StopAtCheckpoint
        return pruning is not None and pruning(steps, recent_return)

    return on_progress
