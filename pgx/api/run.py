"""Runs as Python objects: metrics, agent, evaluation, videos, export, plots, and resuming."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from pgx.analysis.reading import RecordedRun
from pgx.api.acting import TrainedAgent
from pgx.api.arguments import Overrides, config_errors, listed_overrides, stored_environment
from pgx.api.evaluation import Evaluation, evaluate_agent
from pgx.api.execution import execute, kept_torch_threads
from pgx.api.run_data import FolderData, MemoryData, RunData
from pgx.api.run_folder import load_resume_state, load_trusted_config, read_run_config, with_changes
from pgx.config.changes import apply_changes, resume_changes
from pgx.config.overrides import parse
from pgx.config.run_config import RunConfig, with_values
from pgx.core.errors import UserError
from pgx.core.imports import require
from pgx.core.text import format_number, override
from pgx.envs.callables import EnvFactory
from pgx.envs.gymnasium_backend import make_single
from pgx.envs.spaces import action_spec, observation_spec
from pgx.runs.checkpoints import LAST
from pgx.runs.loggers import Logger
from pgx.runs.writer import MemoryWriter
from pgx.training.build import build, load_agent, load_agent_for
from pgx.training.callbacks import as_callback
from pgx.training.evaluation import show_progress

if TYPE_CHECKING:  # optional packages
    import pandas
    from matplotlib.figure import Figure

    from pgx.api.exporting import ExportedPolicy
    from pgx.api.recording import Recording


class Run:
    """Run of `pgx.train` or `pgx.load`.

    Args:
        config: of the run.
        data: stored data of the run.
        factory: function that made its environments; None: Gymnasium's registry has them.
    """

    def __init__(self, config: RunConfig, data: RunData, factory: EnvFactory | None) -> None:
        self._config = config
        self._data = data
        self._factory = factory

    def __repr__(self) -> str:
        summary = self.summary
        result = f"{summary.get('steps', 0):,} steps"
        if summary.get("final_return") is not None:
            result += f", return {format_number(summary['final_return'])}"
        where = "in memory" if self.run_dir is None else str(self.run_dir)
        return f"<Run: {self._config.label} on {self._config.env.id}, {self.status}, {result}, {where}>"

    @property
    def run_dir(self) -> Path | None:
        """Return the folder of the run; None: it is in memory."""
        return self._data.run_dir

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the values of the run, by section, as in its config.yaml."""
        return self._config.values

    @property
    def summary(self) -> dict[str, Any]:
        """Return status, steps, returns and times, as in its summary.json; empty while it has not ended."""
        return self._data.summary()

    @property
    def status(self) -> str:
        """Return how the run ended: finished, stopped, interrupted, pruned or failed; unfinished while it has not."""
        return str(self.summary.get("status", "unfinished"))

    @cached_property
    def metrics(self) -> dict[str, NDArray[Any]]:
        """Return arrays over `step` by tag, as read at the first use; NaN in rows that lack the metric."""
        rows = self._data.rows()
        tags = dict.fromkeys(tag for row in rows for tag in row if tag != "step")
        columns: dict[str, NDArray[Any]] = {"step": np.array([row["step"] for row in rows], dtype=np.int64)}
        for tag in tags:
            columns[tag] = np.array([row.get(tag, np.nan) for row in rows], dtype=np.float64)
        return columns

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the metrics as a table with a row for each step.

        Raises:
            ConfigError: pandas is not installed.
        """
        with config_errors():
            require("Run.to_pandas", "pandas")
        import pandas

        return pandas.DataFrame(self.metrics).set_index("step")

    @cached_property
    def agent(self) -> TrainedAgent:
        """Return the agent of the last checkpoint."""
        return self.load_agent()

    def load_agent(self, checkpoint: str = LAST, seed: int = 0) -> TrainedAgent:
        """Return the agent of a checkpoint.

        Args:
            checkpoint: last, best or step_<steps>.
            seed: of actions that it samples.

        Raises:
            ConfigError: the checkpoint does not exist.
        """
        config = self._config
        with self._environment():
            env = make_single(config.env.id, dict(config.env.kwargs))
            observations, actions = env.observation_space, env.action_space
            env.close()
            specs = observation_spec(config.env.id, observations)[0], action_spec(config.env.id, actions)[0]
            networks = load_agent_for(config, self._data.state(checkpoint), *specs)
        device = torch.device(config.device)
        return TrainedAgent(networks, observations, actions, config.env.id, device, seed)

    def evaluate(
        self,
        episodes: int | None = None,
        deterministic: bool = True,
        seed: int = 0,
        checkpoint: str = LAST,
        max_steps: int | None = None,
    ) -> Evaluation:
        """Play whole episodes with a frozen agent.

        Args:
            episodes: number of episodes; None: `trainer.eval_episodes` of the run.
            deterministic: take the most likely actions; otherwise sample.
            seed: of environments and sampled actions.
            checkpoint: last, best or step_<steps>.
            max_steps: largest length of an episode; None: `trainer.eval_max_steps` of the run.

        Returns:
            Returns and lengths of the episodes, mean and IQM with 95 % intervals.

        Raises:
            ConfigError: the checkpoint does not exist, or an argument is wrong.
        """
        with self._environment():
            config, count = self._config, self._config.trainer.eval_episodes if episodes is None else episodes
            _check_count("episodes", count)
            if max_steps is not None:
                _check_count("max_steps", max_steps)
                config = with_values(config, {"trainer.eval_max_steps": max_steps})
            agent, envs = load_agent(config, self._data.state(checkpoint), max_envs=count)
            mode: Any = "deterministic" if deterministic else "stochastic"
            try:
                with show_progress(count) as on_step:
                    return evaluate_agent(config, agent, envs, count, mode, seed, on_step)
            finally:
                envs.close()

    def record(
        self,
        path: str | Path,
        episodes: int = 1,
        deterministic: bool = True,
        seed: int = 0,
        checkpoint: str = LAST,
        fps: int | None = None,
        width: int | None = None,
        height: int | None = None,
        max_steps: int | None = None,
    ) -> "Recording":
        """Record a video of episodes; no screen is needed.

        Args:
            path: file to write, .mp4 or .gif.
            episodes: number of episodes.
            deterministic: take the most likely actions; otherwise sample.
            seed: of the environment and sampled actions.
            checkpoint: last, best or step_<steps>.
            fps: maximum frames per second; None: 60 for MP4, 25 for GIF.
            width: in pixels, for environments that support it, such as MuJoCo's; None: the environment's.
            height: in pixels, as `width`.
            max_steps: largest length of an episode; None: `trainer.eval_max_steps` of the run.

        Raises:
            ConfigError: the file cannot be written, or the environment cannot be rendered here.
        """
        from pgx.api.recording import record_episodes

        with self._environment():
            _check_count("episodes", episodes)
            size = None if width is None and height is None else (width, height)
            mode: Any = "deterministic" if deterministic else "stochastic"
            state = self._data.state(checkpoint)
            return record_episodes(
                self._config, state, Path(path), episodes, mode, fps, size, max_steps, seed
            )

    def export(self, path: str | Path, checkpoint: str = LAST, seed: int = 0) -> "ExportedPolicy":
        """Write the policy to a file that runs without pgx, and check that both act alike.

        Args:
            path: file to write: .onnx for ONNX; .pt, .pth or .ts for TorchScript.
            checkpoint: last, best or step_<steps>.
            seed: of the observations that are compared.

        Raises:
            ConfigError: the file cannot be written, or a package is missing.
            RunError: the file acts differently from the run; it is removed.
        """
        from pgx.api.exporting import export_policy, format_by_suffix

        with self._environment():
            target = Path(path)
            return export_policy(
                self._config, self._data.state(checkpoint), target, format_by_suffix(target), seed
            )

    def plot(self) -> "Figure":
        """Return a matplotlib figure of the return and health metrics over environment steps.

        Raises:
            ConfigError: matplotlib is missing, or the run has no row of metrics.
        """
        with config_errors():
            require("Run.plot", "matplotlib")
            from pgx.analysis.plots import draw_run

            return draw_run(self.recorded())

    def recorded(self) -> RecordedRun:
        """Return the run as `pgx.compare` reads it.

        Raises:
            ConfigError: it has no row of metrics.
        """
        with config_errors():
            return self._data.recorded()

    def resume(
        self,
        total_steps: int | None = None,
        overrides: Overrides = (),
        callbacks: Sequence[Any] = (),
        loggers: Sequence[Logger] = (),
        progress: bool = True,
    ) -> "Run":
        """Continue the run from its last checkpoint, with the bits of a run that was not interrupted.

        Callbacks and loggers that were passed to `pgx.train` as objects must be passed again.

        Args:
            total_steps: new step budget; None: the old one.
            overrides: of keys that a resumed run may change (docs/checkpoints.md).
            callbacks: as in `pgx.train`.
            loggers: as in `pgx.train`.
            progress: print settings, progress and result.

        Returns:
            The longer run; it has the folder of this one.

        Raises:
            ConfigError: a change is not allowed, or the run has no checkpoint.
            RunError: the run failed.
        """
        with self._environment():
            wishes = listed_overrides(overrides)
            if total_steps is not None:
                wishes.append(override("trainer.total_steps", total_steps))
            if not progress:
                wishes.append("logger.console=off")
            cfg = self._stored_config()
            requested = resume_changes(cfg, parse(wishes))
            config = with_changes(apply_changes(cfg, requested.made), requested)
            state = self._resume_state()
            if config.trainer.compile == "auto":
                # "auto" may decide differently for a longer run or on another machine.
                config = with_values(config, {"trainer.compile": state["compiled"]})
            trainer = build(config, callbacks=[as_callback(each) for each in callbacks], loggers=loggers)
            trainer.load_state_dict(state)
            if isinstance(trainer.writer, MemoryWriter) and isinstance(self._data, MemoryData):
                trainer.writer.rows = list(self._data.writer.rows)
                trainer.writer.checkpoints = dict(self._data.writer.checkpoints)
            execute(trainer, config, prints=progress)
            return Run(config, data_of(trainer.writer, config), self._factory)

    def _stored_config(self) -> DictConfig:
        if self.run_dir is None:
            return OmegaConf.create(dict(self._config.values))
        cfg = read_run_config(self.run_dir)
        cfg.run_dir = str(self.run_dir)
        return cfg

    def _resume_state(self) -> dict[str, Any]:
        state = self._data.state(LAST) if self.run_dir is None else load_resume_state(self.run_dir)
        if state is None:
            raise UserError(f"{self.run_dir}: has no checkpoint; train it again")
        return state

    @contextmanager
    def _environment(self) -> Iterator[None]:
        """Make the run's environment available; report problems as ConfigError."""
        with config_errors(), kept_torch_threads(), stored_environment(self._config.env.id, self._factory):
            yield


def load(run_dir: str | Path, env: EnvFactory | None = None, trust: bool = False) -> Run:
    """Load a run from its folder.

    Args:
        run_dir: folder of the run.
        env: function that makes its environment, for a run that was started with one.
        trust: allow the run's config to import modules, for example of environments (docs/checkpoints.md).

    Raises:
        ConfigError: the folder has no run, or its config is invalid here.
    """
    with config_errors():
        folder = Path(run_dir)
        stored = str(OmegaConf.select(read_run_config(folder), "env.id"))
        with stored_environment(stored, env):
            config = with_values(load_trusted_config(folder, trust), {"run_dir": str(folder)})
    return Run(config, FolderData(folder), env)


def data_of(writer: Any, config: RunConfig) -> RunData:
    """Return the stored data of a run by its writer."""
    return MemoryData(writer, config) if isinstance(writer, MemoryWriter) else FolderData(writer.run_dir)


def _check_count(name: str, value: int) -> None:
    """Check a number of episodes or steps.

    Raises:
        UserError: it is not a whole number >= 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name}: expected a whole number >= 1, got {value!r}")
