"""Composing a config: defaults, precedence, environments without a file, sweeps; every value is read by someone."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from omegaconf import OmegaConf

from pgx.algos import rule, rules
from pgx.config.compose import compose
from pgx.config.overrides import expand_sweep
from pgx.config.run_config import FIXED_SECTIONS, NAMED_SECTIONS
from pgx.config.validate import validate
from pgx.core.errors import UserError
from pgx.core.paths import config_choices, config_dir
from pgx.core.schema import parameter_types
from tests.conftest import NEEDED, composed

# The keys of train.yaml that are in no section.
TOP_LEVEL = {"callbacks", "seed", "device", "torch_threads", "label", "run_dir", "dataset"}


def values(path: Path) -> dict[str, Any]:
    """A file's own values, without its defaults list."""
    loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items() if key != "defaults"}


def orders(*overrides: str) -> list[tuple[str, ...]]:
    """As they are, backwards, and rotated."""
    first, *rest = overrides
    return [overrides, overrides[::-1], (*rest, first)]


# --- defaults and choices


def test_without_overrides_it_is_trpo_on_walker() -> None:
    cfg = compose([])
    validate(cfg)
    assert (cfg.algo.name, cfg.env.id, cfg.seed) == ("trpo", "Walker2d-v4", 0)
    assert cfg.optimizer.name is None
    assert cfg.critic_optimizer.name == "adam"


def test_the_folder_of_a_run_names_environment_rule_and_seed() -> None:
    cfg = compose(["algo=ppo", "env=CartPole-v1", "seed=7"])
    assert cfg.run_dir.startswith("outputs/CartPole-v1/ppo/")
    assert cfg.run_dir.endswith("_seed7")


@pytest.mark.parametrize("env_id", ["Acrobot-v1", "phys2d/CartPole-v1"])
def test_a_registered_environment_needs_no_file(env_id: str) -> None:
    assert env_id not in config_choices("env")
    cfg = compose([f"env={env_id}"])
    validate(cfg)
    default = {
        key: value for key, value in values(config_dir() / "env" / "default.yaml").items() if key != "id"
    }
    algo = values(config_dir() / "algo" / f"{cfg.algo.name}.yaml")
    assert OmegaConf.to_container(cfg.env) == {**default, **algo["env"], "id": env_id}


def test_a_file_and_no_file_have_the_same_keys() -> None:
    assert compose(["env=Walker2d-v4"]).env.keys() == compose(["env=Acrobot-v1"]).env.keys()


def test_env_kwargs_take_new_keys_without_a_plus() -> None:
    cfg = compose(["env.kwargs.new_key=1", "env.kwargs.healthy_z_range=[0.7,2.0]"])
    validate(cfg)
    assert cfg.env.kwargs == {"new_key": 1, "healthy_z_range": [0.7, 2.0]}


def test_env_kwargs_can_be_given_as_one_mapping() -> None:
    cfg = compose(["env.kwargs={new_key:1}"])
    validate(cfg)
    assert cfg.env.kwargs == {"new_key": 1}


ENV_FILES = [env_id for env_id in config_choices("env") if env_id != "default"]
# Enough that each rule and each environment is there; all others in `make test-all`.
COMPOSITIONS = [
    pytest.param(
        name,
        env_id,
        marks=[] if i == j % len(ENV_FILES) or j == i % len(config_choices("algo")) else pytest.mark.system,
    )
    for i, env_id in enumerate(ENV_FILES)
    for j, name in enumerate(config_choices("algo"))
]


@pytest.mark.parametrize(("name", "env_id"), COMPOSITIONS)
def test_every_rule_composes_with_every_environment_that_has_a_file(name: str, env_id: str) -> None:
    cfg = composed(f"algo={name}", f"env={env_id}", *NEEDED.get(name, []))
    validate(cfg)
    assert (cfg.label, cfg.env.id) == (name, env_id)


# --- precedence: command line, algo file, the files of the other groups and train.yaml


@pytest.mark.parametrize("name", config_choices("algo"))
def test_an_algo_file_beats_every_other_file(name: str) -> None:
    cfg = composed(f"algo={name}")
    own = values(config_dir() / "algo" / f"{name}.yaml")
    for section in own.keys() - {"algo", "label"}:
        for key in own[section]:
            assert cfg[section][key] == OmegaConf.merge(cfg, own)[section][key], f"{section}.{key}"


def test_an_algo_file_may_prefer_another_number_of_environments_than_the_default() -> None:
    default = values(config_dir() / "env" / "default.yaml")["num_envs"]
    own = values(config_dir() / "algo" / "npg.yaml")["env"]["num_envs"]
    assert compose(["algo=npg"]).env.num_envs == own != default


def test_a_value_may_follow_another() -> None:
    own = values(config_dir() / "train.yaml")["health"]["clip_range"]
    assert compose(["algo=trpo"]).health.clip_range == own
    assert compose(["algo=ppo", "algo.clip_range=0.3"]).health.clip_range == 0.3
    assert compose(["algo=ppo", "algo.clip_range=0.3", "health.clip_range=0.4"]).health.clip_range == 0.4


@pytest.mark.parametrize("order", orders("algo=ppo", "env=CartPole-v1", "env.num_envs=4"))
def test_the_command_line_beats_every_file_in_whatever_order(order: tuple[str, ...]) -> None:
    cfg = compose(list(order))
    assert cfg.env.num_envs == 4
    assert (cfg.algo.name, cfg.env.id) == ("ppo", "CartPole-v1")


@pytest.mark.parametrize("order", orders("algo=ppo", "optimizer=sgd", "optimizer.learning_rate=0.5"))
def test_a_choice_on_the_command_line_beats_that_of_an_algo_file(order: tuple[str, ...]) -> None:
    cfg = compose(list(order))
    assert (cfg.optimizer.name, cfg.optimizer.learning_rate) == ("sgd", 0.5)


def test_an_environment_s_file_beats_the_default_and_the_rule_follows_it() -> None:
    default = values(config_dir() / "env" / "default.yaml")["discount"]
    swimmer = values(config_dir() / "env" / "Swimmer-v4.yaml")["discount"]
    assert swimmer != default
    for name in rules():
        assert values(config_dir() / "algo" / f"{name}.yaml")["algo"]["discount"] == "${env.discount}"
    assert compose(["algo=ppo", "env=Swimmer-v4"]).algo.discount == swimmer
    assert compose(["algo=ppo", "env=Hopper-v4"]).algo.discount == default
    assert compose(["algo=ppo", "env=Swimmer-v4", "algo.discount=0.5"]).algo.discount == 0.5
    assert compose(["algo=ppo", "env=Swimmer-v4", "env.discount=0.5"]).algo.discount == 0.5


def test_a_value_may_depend_on_the_choice_of_another_group() -> None:
    """REINFORCE takes longer steps in a table, whose numbers are of one state each."""
    rates = [
        compose(["algo=reinforce", f"policy={policy}"]).optimizer.learning_rate
        for policy in ("mlp", "tabular")
    ]
    assert rates[1] == 10 * rates[0]


def test_the_last_of_two_values_counts() -> None:
    assert compose(["seed=1", "seed=2"]).seed == 2


# --- environments of one's own


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module on the path that registers an environment when it is imported."""
    (tmp_path / "own_environments.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('OwnPole-v0', CartPoleEnv, max_episode_steps=50)\n"
        "gymnasium.register('own/Pole-v0', CartPoleEnv, max_episode_steps=50)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_environments"
    sys.modules.pop("own_environments", None)
    for env_id in ("OwnPole-v0", "own/Pole-v0"):
        gymnasium.registry.pop(env_id, None)


@pytest.mark.parametrize("env_id", ["OwnPole-v0", "own/Pole-v0"])
def test_a_module_s_environment_is_registered_by_naming_the_module(own_module: str, env_id: str) -> None:
    assert env_id not in gymnasium.registry
    cfg = compose([f"env={own_module}:{env_id}"])
    validate(cfg)
    assert env_id in gymnasium.registry
    assert cfg.env.num_envs == composed().env.num_envs


def test_the_config_of_a_module_s_environment_can_be_made_by_another_process(own_module: str) -> None:
    cfg = compose([f"env={own_module}:OwnPole-v0"])
    # What another process has: the config, and a registry that has never seen the module.
    del sys.modules[own_module]
    for env_id in ("OwnPole-v0", "own/Pole-v0"):
        del gymnasium.registry[env_id]
    validate(OmegaConf.create(OmegaConf.to_yaml(cfg, resolve=True)))
    assert "OwnPole-v0" in gymnasium.registry, "the config's id imports the module again"


def test_several_environments_of_a_module_can_be_swept_over(own_module: str) -> None:
    overrides = [f"env={own_module}:OwnPole-v0,{own_module}:own/Pole-v0"]
    assert len({compose(job).env.id for job in expand_sweep(overrides)}) == 2


def test_a_module_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(UserError, match="module 'no_such_module' cannot be imported"):
        compose(["env=no_such_module:Foo-v0"])


def test_a_module_that_raises_on_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raising_module.py").write_text("raise RuntimeError('no display')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"raising_module.*no display"):
        compose(["env=raising_module:Foo-v0"])


# --- sweeps


def test_without_a_sweep_there_is_one_job() -> None:
    overrides = ["algo=ppo", "seed=3", "policy.hidden=[64,32]", "env.kwargs={a:1,b:2}"]
    assert expand_sweep(overrides) == [overrides]


def test_a_sweep_runs_every_combination_once() -> None:
    got = expand_sweep(["algo=trpo,ppo", "env=CartPole-v1", "seed=0,1,2"])
    wanted = [
        [f"algo={name}", "env=CartPole-v1", f"seed={seed}"] for name in ("trpo", "ppo") for seed in range(3)
    ]
    assert sorted(got) == sorted(wanted)


@pytest.mark.parametrize("sweep", ["range(0,3)", "choice(0,1,2)", "0,1,2", "range(start=0,stop=3,step=1)"])
def test_ranges_and_choices_expand_like_lists(sweep: str) -> None:
    assert [job[0] for job in expand_sweep([f"seed={sweep}"])] == ["seed=0", "seed=1", "seed=2"]


def test_lists_of_values_can_be_swept_over() -> None:
    seen = [compose(job).policy.hidden for job in expand_sweep(["policy.hidden=[64,64],[32]"])]
    assert seen == [[64, 64], [32]]


def test_every_job_of_a_sweep_composes() -> None:
    seen = {(cfg.algo.name, cfg.seed) for cfg in map(compose, expand_sweep(["algo=trpo,ppo", "seed=0,1"]))}
    assert seen == set(itertools.product(("trpo", "ppo"), (0, 1)))


# --- every value is read


@pytest.mark.parametrize("name", rules())
def test_the_keys_of_an_algo_file_are_the_fields_of_the_rule(name: str) -> None:
    own = values(config_dir() / "algo" / f"{name}.yaml")["algo"]
    assert own.pop("name") == name
    assert own.keys() == parameter_types(rule(name)).keys()


@pytest.mark.parametrize("group", sorted(NAMED_SECTIONS))
def test_the_keys_of_a_chosen_file_are_the_parameters_of_what_it_names(group: str) -> None:
    registry = NAMED_SECTIONS[group]
    for choice in config_choices(group):
        own = values(config_dir() / group / f"{choice}.yaml")
        name = own.pop("name")
        read = set() if name is None else set(parameter_types(registry[name]))
        assert own.keys() == read, f"configs/{group}/{choice}.yaml"


@pytest.mark.parametrize("group", ["logger", "env"])
def test_the_keys_of_a_fixed_section_are_those_of_its_type(group: str) -> None:
    for choice in config_choices(group):
        own = values(config_dir() / group / f"{choice}.yaml")
        assert own.keys() <= parameter_types(FIXED_SECTIONS[group]).keys(), f"configs/{group}/{choice}.yaml"
    cfg = composed()
    assert cfg[group].keys() == parameter_types(FIXED_SECTIONS[group]).keys()


@pytest.mark.parametrize("name", config_choices("algo"))
def test_an_algo_file_sets_elsewhere_only_what_is_there(name: str) -> None:
    cfg = composed()
    for section, wanted in values(config_dir() / "algo" / f"{name}.yaml").items():
        if section in FIXED_SECTIONS:
            assert wanted.keys() <= cfg[section].keys(), f"{section} of configs/algo/{name}.yaml"


def test_a_file_that_sets_what_is_around_the_rule_of_another_has_that_rule_s_values_and_its_own_name() -> (
    None
):
    for name in set(config_choices("algo")) - set(rules()):
        cfg = composed(f"algo={name}")
        assert cfg.algo == composed(f"algo={cfg.algo.name}").algo
        assert cfg.label == name and f"/{name}/" in cfg.run_dir


def test_train_yaml_holds_the_sections_and_keys_of_the_top_level() -> None:
    own = values(config_dir() / "train.yaml")
    assert own.keys() == TOP_LEVEL | {"trainer", "health"}
    for section in ("trainer", "health"):
        assert own[section].keys() == parameter_types(FIXED_SECTIONS[section]).keys()


def test_the_command_line_beats_an_experiment_and_an_experiment_beats_the_algo_file() -> None:
    plain = compose(["algo=trpo"])
    experiment = compose(["experiment=trpo_2015"])
    assert experiment.algo.name == "trpo" and experiment.algo.max_kl != plain.algo.max_kl
    assert experiment.runner.rollout_steps != plain.runner.rollout_steps
    chosen = compose(["experiment=trpo_2015", "algo.max_kl=0.5", "runner.rollout_steps=640"])
    assert (chosen.algo.max_kl, chosen.runner.rollout_steps) == (0.5, 640)
    assert chosen.algo.gae_lambda == experiment.algo.gae_lambda
    validate(chosen)


def said_of(overrides: list[str]) -> Any:
    """The config of overrides, or what is wrong with them."""
    try:
        return OmegaConf.to_container(compose(overrides), resolve=False)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize(
    "overrides",
    [
        ["algo=ppo", "algo.clip_range=0.1", "label=x"],
        ["env=Walker2d-v4", "env.kwargs.healthy_z_min=0.7", "++env.kwargs.healthy_z_max=2"],
        ["reward=hop", "reward.terms.smoothness={weight:0.5}"],
        ["critic_optimizer.name.x=0"],
        ["critic_optimizer=none", "critic_optimizer.name.x=0"],
        ["critic_optimizer=none", "critic_optimizer.name=x"],
        ["policy.hidden.0=3"],
        ["policy.hidden=[3]"],
        ["~algo.clip_range"],
        ["~policy.hidden.0"],
        ["algo=ppo", "~algo.clip_range"],
        ["algo=ppo", "algo.clip_range.x=1", "algo.clip_range.y=2"],
        ["algo.clip=1", "trainer.steps=5"],
        ["+algo.extra=1", "algo.extra=2"],
        ["hydra.run.dir=x"],
    ],
    ids=" ".join,
)
def test_the_quick_and_the_full_check_of_keys_agree(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = said_of(overrides)
    monkeypatch.setattr(sys.modules["pgx.config.compose"], "_compose_if_valid", lambda parsed: None)
    assert said_of(overrides) == at_once


def test_valid_overrides_are_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module, calls = sys.modules["pgx.config.compose"], []
    once = module._call_hydra
    monkeypatch.setattr(module, "_call_hydra", lambda overrides: calls.append(overrides) or once(overrides))
    compose(["algo=trpo", "env=Walker2d-v4", "algo.max_kl=0.05", "env.kwargs.healthy_z_min=0.7"])
    assert len(calls) == 1
