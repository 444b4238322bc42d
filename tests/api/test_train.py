"""pgx.train: the same bits as the command line, objects as arguments, bad input, runs in memory."""

import dataclasses
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch

import pgx
from pgx.algos.a2c import A2C
from pgx.core.errors import RunError
from pgx.runs.checkpoints import Checkpoints
from pgx.runs.loggers.jsonl import read_rows
from pgx.training.callbacks import TrainingState
from tests.command import Command

SMALL = ["env.num_envs=4", "runner.rollout_steps=32", "trainer.compile=false", "logger.sinks=[]"]
MEMORY: dict[str, Any] = {"run_dir": None, "progress": False, "overrides": SMALL, "total_steps": 512}


def parameters(run_dir: Path) -> dict[str, torch.Tensor]:
    state = Checkpoints(run_dir).load("last")["agent"]
    return {f"{part}.{name}": value for part in ("policy", "critic") for name, value in state[part].items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("algo", ["trpo", "ppo"])
def test_python_and_the_command_line_train_the_same_bits(command: Command, tmp_path: Path, algo: str) -> None:
    words = [f"algo={algo}", "env=CartPole-v1", "seed=3", "trainer.total_steps=512", *SMALL]
    assert command("train", *words, "run_dir=typed").code == 0
    run = pgx.train(
        algo,
        "CartPole-v1",
        total_steps=512,
        seed=3,
        run_dir=tmp_path / "called",
        overrides=SMALL,
        progress=False,
    )
    memory = pgx.train(algo, "CartPole-v1", seed=3, **MEMORY)
    typed = parameters(tmp_path / "typed")
    assert same(typed, parameters(tmp_path / "called"))
    networks = memory.agent.networks
    assert all(torch.equal(typed[f"policy.{n}"], v) for n, v in networks.policy.state_dict().items())
    logged = [
        {k: v for k, v in row.items() if not k.startswith("time/")}
        for row in read_rows(tmp_path / "typed" / "metrics.jsonl")
    ]
    for tag in logged[-1]:
        assert np.array_equal(run.metrics[tag], [row.get(tag, np.nan) for row in logged], equal_nan=True)
        assert np.array_equal(memory.metrics[tag], run.metrics[tag], equal_nan=True)


def test_an_object_sets_the_values_that_were_passed_to_it_and_no_other() -> None:
    as_text = pgx.train("trpo", "CartPole-v1", **MEMORY)
    as_object = pgx.train(
        pgx.TRPO(max_kl=0.02),
        "CartPole-v1",
        policy=pgx.MLPPolicy(hidden=(16, 8)),
        critic_optimizer=pgx.Adam(learning_rate=np.float64(1e-3)),
        **MEMORY,
    )
    assert as_object.config["algo"] == {**as_text.config["algo"], "max_kl": 0.02}
    assert as_object.config["policy"] == {**as_text.config["policy"], "hidden": [16, 8]}
    # The file of the rule sets other values of the optimizer than configs/critic_optimizer; they stay.
    changed = {**as_text.config["critic_optimizer"], "learning_rate": 1e-3}
    assert as_object.config["critic_optimizer"] == changed


def test_a_class_of_a_rule_is_the_rule_with_its_own_values() -> None:
    assert pgx.train(pgx.PPO, "CartPole-v1", **MEMORY).config["algo"]["name"] == "ppo"


def test_overrides_may_be_values_by_key() -> None:
    wishes = MEMORY | {"overrides": {"env.num_envs": 4, "policy.hidden": [8], "runner.rollout_steps": 32}}
    run = pgx.train("ppo", "CartPole-v1", **wishes)
    assert run.config["policy"]["hidden"] == [8] and run.config["env"]["num_envs"] == 4


def test_a_run_in_memory_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = pgx.train("ppo", "CartPole-v1", **MEMORY)
    assert list(tmp_path.iterdir()) == [] and run.run_dir is None
    assert run.status == "finished" and run.summary["steps"] >= 512 and run.metrics["step"][-1] >= 512


def test_a_run_in_memory_continues_with_the_bits_of_one_that_was_not_interrupted() -> None:
    budget = {"trainer.checkpoint_every": 256, "env.num_envs": 4, "runner.rollout_steps": 32}
    short = pgx.train("ppo", "CartPole-v1", **MEMORY | {"overrides": budget, "callbacks": [_stop_at(256)]})
    assert short.status == "stopped" and short.summary["steps"] < 512
    whole = pgx.train("ppo", "CartPole-v1", **MEMORY | {"overrides": budget})
    long = short.resume(progress=False)
    assert np.array_equal(whole.metrics["step"], long.metrics["step"])
    ours, theirs = long.agent.networks.state_dict(), whole.agent.networks.state_dict()
    assert all(torch.equal(ours["policy"][name], value) for name, value in theirs["policy"].items())


def _stop_at(step: int) -> Any:
    def stop(state: TrainingState) -> pgx.Stop | None:
        return pgx.STOP if state.step >= step else None

    return stop


def test_a_folder_is_resumed_with_callbacks_and_more_steps(tmp_path: Path) -> None:
    seen: list[int] = []
    arguments = MEMORY | {"run_dir": tmp_path / "run"}
    first = pgx.train("ppo", "CartPole-v1", **arguments).summary["steps"]
    longer = pgx.load(tmp_path / "run").resume(
        total_steps=1024, callbacks=[lambda state: seen.append(state.step)], progress=False
    )
    assert longer.summary["steps"] >= 1024 and seen[0] > first and longer.run_dir == tmp_path / "run"
    with pytest.raises(pgx.ConfigError, match=r"algo\.clip_range: 0\.2 -> 0\.1; a resumed run keeps this"):
        longer.resume(overrides=["algo.clip_range=0.1"])


def test_a_new_run_gets_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = MEMORY.copy()
    del arguments["run_dir"]
    first, second = (pgx.train("ppo", "CartPole-v1", seed=1, **arguments) for _ in range(2))
    assert first.run_dir != second.run_dir
    assert str(first.run_dir).startswith("outputs/CartPole-v1/ppo/")
    assert pgx.load(str(first.run_dir)).summary == first.summary


# --- environments as functions and specs


def cart() -> Any:
    return gymnasium.make("CartPole-v1")


def test_an_environment_may_be_a_function(tmp_path: Path) -> None:
    run = pgx.train("ppo", cart, **MEMORY | {"run_dir": tmp_path / "run"})
    by_id = pgx.train("ppo", "CartPole-v1", **MEMORY | {"overrides": [*SMALL, "env.backend=gymnasium"]})
    assert run.config["env"]["id"] == "python/cart" and "python/cart" not in gymnasium.registry
    tag = "rollout/episode_return"
    assert np.array_equal(run.metrics[tag], by_id.metrics[tag], equal_nan=True)
    assert len(run.evaluate(3).returns) == 3 and run.agent.act(np.zeros(4)) in (0, 1)
    with pytest.raises(pgx.ConfigError, match=r"python/cart: a function of a Python program.*env="):
        pgx.load(tmp_path / "run")
    assert len(pgx.load(tmp_path / "run", env=cart).evaluate(2).returns) == 2
    longer = pgx.load(tmp_path / "run", env=cart).resume(total_steps=700, progress=False)
    assert longer.summary["steps"] >= 700


def test_the_command_line_says_how_a_run_with_a_function_is_continued(
    command: Command, tmp_path: Path
) -> None:
    pgx.train("ppo", cart, **MEMORY | {"run_dir": tmp_path / "run"})
    for words in (["train", "--resume", "run", "trainer.total_steps=900"], ["eval", "run"]):
        said = command(*words)
        assert said.code == 2 and "pgx.load(RUN, env=...)" in said.err


def test_a_spec_equal_to_a_registered_one_is_that_environment() -> None:
    spec = gymnasium.spec("CartPole-v1")
    assert pgx.train("ppo", spec, **MEMORY).config["env"]["id"] == "CartPole-v1"
    longer = dataclasses.replace(spec, max_episode_steps=7)
    run = pgx.train("ppo", longer, **MEMORY)
    assert (
        run.config["env"]["id"] == "python/CartPole-v1"
        and run.metrics["rollout/episode_length_max"].max() == 7
    )


def test_two_functions_of_one_name_are_two_environments_while_both_run() -> None:
    """Threads: neither run may step the other's environment, whatever the order of their steps."""
    found: dict[int, Any] = {}
    both = threading.Barrier(2, timeout=60)

    def train(limit: int) -> None:
        def wait(state: TrainingState) -> None:
            if state.iteration == 1:
                both.wait()

        limited = lambda: gymnasium.make("CartPole-v1", max_episode_steps=limit)  # noqa: E731
        found[limit] = pgx.train("ppo", limited, callbacks=[wait], **MEMORY)

    threads = [threading.Thread(target=train, args=(limit,)) for limit in (5, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {limit: run.metrics["rollout/episode_length_max"].max() for limit, run in found.items()} == {
        5: 5,
        9: 9,
    }
    assert sorted(run.config["env"]["id"] for run in found.values()) == ["python/lambda", "python/lambda-2"]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("CartPol-v1", "did you mean 'CartPole-v1'"),
        (3, "expected an id such as"),
        (lambda: None, "must inherit from the gymnasium.Env class"),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
    ids=["id", "number", "none", "raises"],
)
def test_a_bad_environment_is_a_config_error(env: Any, message: str) -> None:
    with pytest.raises(pgx.ConfigError, match=message):
        pgx.train("ppo", env, **MEMORY)


def test_an_environment_instead_of_a_function_is_refused() -> None:
    env = gymnasium.make("CartPole-v1")
    with pytest.raises(pgx.ConfigError, match=r"got an environment.*env=lambda"):
        pgx.train("ppo", env, **MEMORY)
    env.close()


# --- rules as objects


@dataclass
class Doubled:
    """A2C with twice the advantages of its estimate."""

    scale: float = 2.0
    discount: float = 0.99

    uses: ClassVar[frozenset[Any]] = A2C.uses  # type: ignore[assignment]
    metrics: ClassVar[tuple[pgx.Metric, ...]] = (
        *A2C.metrics,
        pgx.Metric("scaled", "1", "factor of the advantages"),
    )

    def conflicts(self, setting: Any) -> list[str]:
        return []

    def _rule(self) -> Any:
        return A2C(discount=self.discount)

    def estimate(self, agent: Any, rollout: Any) -> Any:
        return self._rule().estimate(agent, rollout)

    def update(self, agent: Any, learner: Any, rollout: Any, progress: float) -> dict[str, float]:
        return self._rule().update(agent, learner, rollout, progress) | {"scaled": self.scale}


def test_a_rule_of_ones_own_needs_no_file_and_declares_its_metrics(tmp_path: Path) -> None:
    spec: dict[str, Any] = {"optimizer": pgx.Adam(learning_rate=1e-3), "critic_optimizer": pgx.Adam()}
    run = pgx.train(Doubled(scale=3.0), "CartPole-v1", **spec, **MEMORY | {"run_dir": tmp_path / "run"})
    assert set(run.metrics["algo/scaled"]) == {3.0}
    assert run.config["algo"] == {"name": f"{__name__}:Doubled", "scale": 3.0, "discount": 0.99}
    with pytest.raises(pgx.ConfigError, match=r"would import the module.*trust"):
        pgx.load(tmp_path / "run")
    assert pgx.load(tmp_path / "run", trust=True).config == run.config


def test_the_command_line_resumes_a_run_of_a_rule_without_a_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its values are in the config of the run; another process has no object of the rule."""
    spec: dict[str, Any] = {"optimizer": "adam", "critic_optimizer": "adam"}
    pgx.train(Doubled(scale=3.0), "CartPole-v1", **spec, **MEMORY | {"run_dir": tmp_path / "run"})
    monkeypatch.setattr("pgx.config.rules._values", {})
    monkeypatch.setattr("pgx.algos._classes", {})
    said = command("train", "--resume", "run", "trainer.total_steps=900", "--trust")
    assert said.code == 0, said.err
    assert pgx.load(tmp_path / "run", trust=True).config["algo"]["scale"] == 3.0


def test_the_second_object_of_a_rule_has_its_own_values() -> None:
    spec: dict[str, Any] = {"optimizer": "adam", "critic_optimizer": "adam"}
    runs = [pgx.train(Doubled(scale), "CartPole-v1", **spec, **MEMORY) for scale in (1.0, 5.0)]
    assert [run.config["algo"]["scale"] for run in runs] == [1.0, 5.0]


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ({"algo": "trpoo"}, ["did you mean 'trpo'"]),
        ({"algo": dict}, ["dict is no update rule"]),
        ({"policy": pgx.MLPCritic()}, ["policy: got MLPCritic; expected a name (mlp,"]),
        ({"overrides": ["seed=1,2"]}, ["seed=1,2: has several values; call this once for each"]),
        ({"overrides": ["hydra/launcher=joblib"]}, ["belongs to the command line"]),
        ({"overrides": "seed=1"}, ["expected a list, got one text"]),
        ({"overrides": ["env.num_env=3", "algo.clip_rang=0.1"]}, ["env.num_env", "algo.clip_rang"]),
        ({"total_steps": -1}, ["trainer.total_steps: expected a whole number >= 1, got -1"]),
        ({"callbacks": [3]}, ["callbacks: 3 is no callback"]),
        ({"overrides": ["trainer.record_every=100"]}, ["run_dir=null"]),
        ({"overrides": ["logger.sinks=[wandb]"]}, ["logger.sinks: wandb: a run without a folder"]),
    ],
    ids=lambda value: str(next(iter(value.items()))) if isinstance(value, dict) else "",
)
def test_all_problems_are_in_one_config_error(arguments: dict[str, Any], messages: list[str]) -> None:
    asked = {"algo": "ppo", "env": "CartPole-v1"} | MEMORY | arguments
    with pytest.raises(pgx.ConfigError) as caught:
        pgx.train(**asked)
    text = "\n".join(caught.value.problems)
    assert all(message in text for message in messages), text


def test_a_refused_run_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = MEMORY.copy()
    del arguments["run_dir"]
    with pytest.raises(pgx.ConfigError):
        pgx.train("ppo", lambda: 1 / 0, **arguments)  # type: ignore[arg-type,return-value]
    assert list(tmp_path.iterdir()) == []


def test_a_callback_that_raises_fails_the_run_with_its_exception(tmp_path: Path) -> None:
    def broken(state: TrainingState) -> None:
        raise ZeroDivisionError("of the callback")

    with pytest.raises(Exception, match="of the callback") as caught:
        pgx.train("ppo", "CartPole-v1", callbacks=[broken], **MEMORY | {"run_dir": tmp_path / "run"})
    chain = [caught.value, caught.value.__cause__]
    assert any(isinstance(error, ZeroDivisionError) for error in chain)
    run = pgx.load(tmp_path / "run")
    assert run.status == "failed" and "of the callback" in run.summary["error"]
    assert run.resume(progress=False).status == "finished"


def test_an_environment_that_fails_fails_the_run(tmp_path: Path) -> None:
    class Failing(gymnasium.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            raise RuntimeError("the arm is broken")

    with pytest.raises(RunError, match="the arm is broken"):
        pgx.train("ppo", lambda: Failing(cart()), **MEMORY)


def test_the_number_of_torch_threads_is_that_of_before() -> None:
    torch.set_num_threads(2)
    try:
        pgx.train("ppo", "CartPole-v1", **MEMORY).evaluate(1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_loggers_get_the_rows_and_the_summary() -> None:
    class Noting:
        def __init__(self) -> None:
            self.steps: list[int] = []
            self.ended = ""

        def write(self, steps: int, metrics: dict[str, float]) -> None:
            self.steps.append(steps)

        def write_video(self, steps: int, clip: Any) -> None: ...
        def flush(self) -> None: ...
        def finish(self, summary: dict[str, Any]) -> None:
            self.ended = summary["status"]

        def close(self) -> None: ...

    logger = Noting()
    run = pgx.train("ppo", "CartPole-v1", loggers=[logger], **MEMORY)
    assert logger.steps == list(run.metrics["step"]) and logger.ended == "finished"
