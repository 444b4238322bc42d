"""Unused keys: those that the user set are reported, and the table of them is complete and correct."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from pgx.algos import rule, rules
from pgx.api.run_folder import compose_valid
from pgx.config.cross_checks import USED_IF, overridden_keys, unused_keys
from pgx.config.run_config import FIXED_SECTIONS, NAMED_SECTIONS, TopLevelConfig, flatten_config
from pgx.config.validate import plain_values
from pgx.core.algorithm import Setting
from pgx.core.errors import UserError
from pgx.core.paths import config_choices, config_dir
from pgx.core.schema import parameter_types
from pgx.training.trainer import Trainer
from tests.command import Command
from tests.conftest import Make, composed, parameters, small

PACKAGE = Path(__file__).parents[2] / "pgx"


def problems(*overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        compose_valid(list(overrides))
    return list(caught.value.problems)


# --- what is said


@pytest.mark.parametrize(
    ("overrides", "key", "because"),
    [
        ("env.obs_clip=5 env.normalize_obs=false", "env.obs_clip", "env.normalize_obs=false"),
        ("env.reward_clip=null env.scale_reward=false", "env.reward_clip", "env.scale_reward=false"),
        ("env.num_threads=2 env.backend=gymnasium", "env.num_threads", "env.backend='gymnasium'"),
        (
            "trainer.compile_min_steps=5 trainer.compile=true",
            "trainer.compile_min_steps",
            "trainer.compile=true",
        ),
        ("logger.console_interval=5 logger.console=live", "logger.console_interval", "logger.console='live'"),
        ("algo=impala runner.connect_seconds=5", "runner.connect_seconds", "runner.backend='local'"),
        ("algo=ppo algo.epochs=1 algo.target_kl=0.1", "algo.target_kl", "algo.epochs=1"),
        ("algo=ppo_kl algo.adapt_beta=false algo.kl_target=0.1", "algo.kl_target", "algo.adapt_beta=false"),
        ("algo=npg algo.euclidean_radius=1", "algo.euclidean_radius", "algo.solver='cg'"),
        ("algo=reinforce algo.critic_epochs=3", "algo.critic_epochs", "algo.baseline='time_dependent'"),
        ("trainer={compile_min_steps:5,compile:true}", "trainer.compile_min_steps", "trainer.compile=true"),
        ("++env.obs_clip=5 ++env.normalize_obs=false", "env.obs_clip", "env.normalize_obs=false"),
        (
            "sweep=ppo_cartpole sweep.warmup_steps=1 sweep.pruner=none",
            "sweep.warmup_steps",
            "sweep.pruner='none'",
        ),
    ],
)
def test_an_unused_key_is_named_with_the_key_that_decides(overrides: str, key: str, because: str) -> None:
    (line,) = problems(*overrides.split())
    assert line.startswith(f"{key}: unused with {because};")


@pytest.mark.parametrize(
    ("solver", "unused"),
    [
        ("cg", {"euclidean_radius"}),
        ("exact", {"cg_steps", "cg_tolerance", "euclidean_radius"}),
        ("euclidean", {"cg_steps", "cg_tolerance", "max_kl", "fisher", "damping"}),
    ],
)
def test_unused_keys_of_the_solvers_of_the_natural_gradient(solver: str, unused: set[str]) -> None:
    found = idle(["algo=npg", "env=CartPole-v1", f"algo.solver={solver}"])
    assert {key for key in found if key.startswith("algo.")} == {f"algo.{key}" for key in unused}


def test_a_default_of_others_is_named_where_the_others_are_set_as_well() -> None:
    assert problems("env.discount=0.9", "algo.discount=0.8")[0].startswith(
        "env.discount: unused, because algo.discount"
    )
    compose_valid(["env.discount=0.9"])
    compose_valid(["algo.discount=0.8"])
    compose_valid(["env.discount=0.9", "algo.discount=${env.discount}"])


def test_unused_values_of_pgx_s_files_are_not_reported() -> None:
    compose_valid(
        ["env.normalize_obs=false", "env.scale_reward=false", "logger.console=off", "trainer.compile=false"]
    )
    for solver in ("exact", "euclidean"):
        compose_valid(["algo=npg", f"algo.solver={solver}"])


def test_with_other_problems_it_is_one_error() -> None:
    found = problems("env.obs_clip=5", "env.normalize_obs=false", "optimizer=adam")
    assert [re.split("[:=]", line)[0] for line in found] == ["optimizer", "env.obs_clip"]


@pytest.mark.parametrize("name", config_choices("experiment"))
def test_the_keys_of_an_experiment_are_asked_for(name: str) -> None:
    written = OmegaConf.to_container(OmegaConf.load(config_dir() / "experiment" / f"{name}.yaml"))
    assert isinstance(written, dict)
    own = {f"{section}.{key}" for section in written.keys() - {"defaults"} for key in written[section]}
    assert set(overridden_keys([f"experiment={name}"])) == own
    compose_valid([f"experiment={name}"])


def test_an_unused_key_of_an_experiment_is_named() -> None:
    found = problems("experiment=trpo_2015", "algo=npg", "algo.solver=euclidean")
    assert {line.split(":")[0] for line in found} == {"algo.max_kl", "algo.damping", "algo.cg_steps"}


def test_each_job_of_a_sweep_is_checked_in_the_same_way(command: Command, tmp_path: Path) -> None:
    said = command("train", "-m", "env.normalize_obs=true,false", "env.obs_clip=5")
    assert said.code == 2 and list(tmp_path.iterdir()) == []
    assert "env.obs_clip: unused with env.normalize_obs=false" in said.problems[0]


# --- of rules: what the table leaves out is read, and what it names changes nothing

SETTINGS: dict[str, list[list[str]]] = {
    "ppo": [["algo.epochs=2", "algo.target_kl=1e-9", "algo.value_clip=0.2"], ["algo.epochs=1"]],
    "ppo_kl": [[], ["algo.adapt_beta=false"], ["algo.epochs=1"]],
    "trpo": [[], ["algo.line_search_steps=0"], ["algo.critic_epochs=0"]],
    "mdpo": [["algo.minibatch_size=64"], ["algo.critic_epochs=0"]],
    "npg": [
        [],
        ["algo.solver=euclidean"],
        ["algo.solver=exact", "policy.hidden=[4]"],
        ["algo.solver=compatible", "algo.fisher=empirical", "policy.hidden=[4]"],
    ],
    "reinforce": [[], ["algo.baseline=value", "critic=mlp", "critic_optimizer=adam", "algo.critic_epochs=2"]],
    "actor_critic": [[], ["algo.n_steps=3", "algo.gae_lambda=null"]],
}
CASES = [
    pytest.param(name, setting, marks=[] if number == 0 else pytest.mark.system)
    for name in rules()
    for number, setting in enumerate(SETTINGS.get(name, [[]]))
]

OTHERWISE = {
    "algo.critic_epochs": "3",
    "algo.critic_minibatch_size": "32",
    "algo.line_search_shrink": "0.31",
    "algo.recompute_advantages": "true",
    "algo.target_kl": "1e-9",
    "algo.kl_target": "1.0",
    "algo.max_kl": "0.7",
    "algo.fisher": "kl_hessian",
    "algo.damping": "0.9",
    "algo.cg_steps": "2",
    "algo.cg_tolerance": "0.5",
    "algo.euclidean_radius": "3.0",
    "env.obs_clip": "0.01",
    "env.reward_clip": "0.01",
    "env.num_threads": "2",
    "env.worker_timeout": "5",
}


def overrides_of(name: str, setting: list[str]) -> list[str]:
    own = [o for o in small(name) if o.split("=")[0] not in {s.split("=")[0] for s in setting}]
    return [*own, "env=CartPole-v1", *setting]


def watched(algorithm: Any) -> set[str]:
    """The fields of a rule that are read from now on, as they are."""
    names, read = {field.name for field in fields(algorithm)}, set[str]()
    kind = type(algorithm)

    class Watched(kind):  # type: ignore[valid-type, misc]
        def __getattribute__(self, name: str) -> Any:
            if name in names:
                read.add(name)
            return super().__getattribute__(name)

    algorithm.__class__ = Watched
    return read


def updated(trainer: Trainer, times: int = 3) -> torch.Tensor:
    """The parameters after so many updates: a phase of PPG's is as long."""
    for _ in range(times):
        rollout = trainer.runner.collect(trainer.agent)
        trainer.algorithm.estimate(trainer.agent, rollout)
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    return parameters(trainer)


def idle(overrides: list[str]) -> set[str]:
    """Keys that the table has as unread under these overrides."""
    return set(unused_keys(flatten_config(plain_values(composed(*overrides)))))


@pytest.mark.parametrize(
    ("name", "setting"), CASES, ids=lambda case: "-".join(case) if isinstance(case, list) else case
)
def test_every_hyperparameter_is_used_in_an_update_or_listed_as_unused(
    make: Make, name: str, setting: list[str]
) -> None:
    trainer = make(*overrides_of(name, setting))
    read = watched(trainer.algorithm)
    trainer.algorithm.conflicts(Setting(64, 4, policy="mlp", critic="mlp", sequence_length=None))
    updated(trainer)
    never = {f"algo.{key}" for key in parameter_types(rule(name)).keys() - read}
    assert never <= idle(
        [*overrides_of(name, setting), *(["dataset=x"] if name == "off_policy_reinforce" else [])]
    )


@pytest.mark.parametrize("name", rules())
def test_every_hyperparameter_of_a_rule_is_read_under_some_setting(name: str) -> None:
    each = [idle([*overrides_of(name, setting)]) for setting in SETTINGS.get(name, [[]])]
    assert not {f"algo.{key}" for key in parameter_types(rule(name))} & set.intersection(*each)


CLAIMS = [
    (name, setting, key)
    for name in rules()
    for setting in SETTINGS.get(name, [[]])
    if name != "off_policy_reinforce"
    for key in sorted(idle(overrides_of(name, setting)))
    if key.startswith("algo.")
] + [
    # Of sections that are the same for every rule.
    ("ppo", ["env.normalize_obs=false"], "env.obs_clip"),
    ("ppo", ["env.scale_reward=false"], "env.reward_clip"),
    ("ppo", ["env.backend=gymnasium"], "env.num_threads"),
    ("ppo", ["env.backend=envpool"], "env.worker_timeout"),
]


@pytest.mark.parametrize(
    ("name", "setting", "key"), CLAIMS, ids=lambda case: "-".join(case) if isinstance(case, list) else case
)
def test_a_key_that_the_table_has_as_unread_changes_no_bit(
    make: Make, name: str, setting: list[str], key: str
) -> None:
    own = [o for o in overrides_of(name, setting) if not o.startswith(f"{key}=")]
    other = make(*own, f"{key}={OTHERWISE[key]}", name="other")
    assert torch.equal(updated(make(*own), times=1), updated(other, times=1))


def test_a_warm_up_without_statistics_changes_no_bit(make: Make) -> None:
    """It comes before the first rollout, so whole runs are compared."""
    own = ["algo=ppo", "env=CartPole-v1", "algo.minibatch_size=64", "env.normalize_obs=false"]
    runs = [make(*own, f"env.normalizer_warmup_steps={steps}", name=str(steps)) for steps in (0, 64)]
    assert runs[0].train()["steps"] == runs[1].train()["steps"]
    assert torch.equal(parameters(runs[0]), parameters(runs[1]))


def test_every_claim_of_the_table_is_put_to_the_proof() -> None:
    proved = {key for _, _, key in CLAIMS} | {"env.normalizer_warmup_steps"}
    # What is shown, compiled, waited for and searched: no part of what a run learns.
    elsewhere = {
        "trainer.compile_min_steps",
        "trainer.record_every",
        "trainer.record_seconds",
        "trainer.record_width",
        "logger.project",
        "logger.console_interval",
        "runner.connect_seconds",
        "sweep.warmup_steps",
    }
    assert {each.key for each in USED_IF} == proved | elsewhere


# --- of the sections that never vary, and of what is chosen by name

HELD = {"env": "env", "reward": "reward", "training": "trainer", "logger": "logger", "config": "", "cfg": ""}


def reads(path: Path) -> Iterator[str]:
    """Dotted keys of the config that a file reads: env.id, config.logger.every, values["logger"]["every"]."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            name, _, rest = ast.unparse(node).partition(".")
            if name in HELD:
                yield f"{HELD[name]}.{rest}".strip(".")
        elif isinstance(node, ast.Subscript) and ast.unparse(node).startswith("values["):
            yield ".".join(re.findall(r"\['(\w+)'\]", ast.unparse(node)))
        elif isinstance(node, ast.Attribute | ast.Call) and ast.unparse(node).startswith("Health("):
            yield "health.clip_range"


def test_every_key_of_the_sections_that_never_vary_is_read() -> None:
    files = [
        *(PACKAGE / "config").glob("*.py"),
        *(PACKAGE / "training").glob("*.py"),
        *(PACKAGE / "api").glob("*.py"),
        *(PACKAGE / "cli").rglob("*.py"),
    ]
    read = {key for path in files for key in reads(path)}
    known = set(parameter_types(TopLevelConfig)) | {
        f"{s}.{key}" for s, section in FIXED_SECTIONS.items() for key in parameter_types(section)
    }
    referred = {"env.discount", "dataset"}  # what configs/algo and configs/runner/dataset.yaml refer to
    assert known - read - referred == set()


def fields_read(spec: type[Any]) -> set[str]:
    """Names that the methods of a class and of its bases read as attributes of self."""
    sources = [inspect.getsource(kind) for kind in spec.__mro__ if kind.__module__.startswith("pgx.")]
    nodes = [node for source in sources for node in ast.walk(ast.parse(textwrap.dedent(source)))]
    return {n.attr for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "self"}


@pytest.mark.parametrize("section", NAMED_SECTIONS)
def test_every_field_of_what_a_name_chooses_is_used(section: str) -> None:
    built = ast.parse((PACKAGE / "training" / "build.py").read_text())
    read = {node.attr for node in ast.walk(built) if isinstance(node, ast.Attribute)}
    for name, spec in NAMED_SECTIONS[section].items():
        used = fields_read(spec) if hasattr(spec, "make") else read
        assert set(parameter_types(spec)) <= used, f"{section}={name}"
