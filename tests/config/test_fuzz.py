"""Command lines drawn at random: each is a valid config, or one error whose every line names a key or the text."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pgx.api.run_folder import compose_valid
from pgx.cli.train import _options
from pgx.config.overrides import MAX_JOBS, expand_sweep, prepare
from pgx.config.run_config import flatten_config
from pgx.core.errors import UserError
from pgx.core.paths import config_choices, config_groups
from tests.command import Command
from tests.conftest import composed

TIMEOUT = 120  # seconds for what takes some hundredths

ROOTS = [
    "algo=trpo",
    "algo=ppo",
    "algo=npg",
    "algo=ppg",
    "algo=impala",
    "algo=a3c",
    "algo=reinforce",
    "policy=lstm",
]
CONFIGS = [composed(root) for root in ROOTS]
KEYS = sorted({key for cfg in CONFIGS for key in flatten_config(OmegaConf.to_container(cfg, resolve=False))})
SECTIONS = sorted({key.split(".")[0] for key in KEYS if "." in key})
GROUPS = config_groups()

# --- what command lines are made of

letters = st.characters(codec="utf-8", exclude_characters="\x00")
texts = st.text(letters, max_size=12)


@st.composite
def misspelt(draw: st.DrawFn, word: str) -> str:
    """A word with a letter lost, doubled or replaced."""
    at = draw(st.integers(0, len(word) - 1))
    return word[:at] + draw(st.sampled_from(["", word[at] * 2, "x", ".", "_"])) + word[at + 1 :]


keys = st.one_of(
    st.sampled_from(KEYS),
    st.sampled_from(KEYS).flatmap(misspelt),
    st.builds("{}.{}".format, st.sampled_from(KEYS), st.sampled_from(["x", "name", "0", "_target_", ""])),
    st.builds(
        "{}.{}".format, st.sampled_from(SECTIONS), st.sampled_from(["x", "name", "_target_", "kwargs.x"])
    ),
    st.sampled_from(
        [*SECTIONS, *GROUPS, "hydra.run.dir", "hydra/launcher", "hydra", "_target_", "env/x", ""]
    ),
    texts,
)
numbers = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([0, 1, 2, 4, 16, 32, 60, 64, 128, 2048, 10**9, 2**62, 2**63, 10**30, 10**400, -(10**30)]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["1e400", "-1e400", "1e-400", "nan", "-inf", "0x10", "1_000", "0.5", "1.5", "9" * 5000]),
).map(str)
WRITTEN = r"""
null true false a auto none cpu linear cg exact '' "" [] [1] [64,64] [a,[b]] [64 {} {a:1} {a:{b:1}} {1:2}
{x:[1,{y:2}]} {a:1 {:} ${seed} ${env.num_envs} ${algo.discount} ${nope} ${oc.env:HOME} ${oc.env:NO_SUCH}
${seed ${oc.decode:'{'} ${now:%Y} ${absolute:x} ${sweep_number:1} ${nope:1} ${hydra:job.num} ??? a,b 0,1
1,null [1],[2] range(0,3) range(3) range(0,3,0) range(0,1,0.0) range(0,1,1e-9) range(0,1000000000)
range(0,1e300,1e290) shuffle(range(0,1000000000)) choice(1,2) choice() interval(0,1) interval(1,0)
shuffle(1,2) sort(3,1,2) tag(a,1,2) tag(log,interval(1,2)) glob(*) glob([a*],exclude=b) int(3.7) int(x)
float(1) str(1) bool(7) json_str(1) f(1) a:b a\,b a\=b = == a=b @ ~ + $ $$ \ ' " ` # % & * ! ../../x
/etc/passwd -1 --x
"""
ODD = ["", "'a b'", '"a b"', "a b", "a\nb", "\t", "\u00e9", "\U0001f600", "x" * 5000, "[" * 300, "{a:" * 200]
written = st.sampled_from([*WRITTEN.split(), *ODD])
values = st.one_of(numbers, written, texts)
plain = st.builds(
    "{}{}{}={}".format,
    st.sampled_from(["", "", "", "", "+", "++", "~"]),
    keys,
    st.sampled_from(["", "", "", "", "", "@", "@x", "@critic", "@_global_", ":x"]),
    values,
)


@st.composite
def choice(draw: st.DrawFn) -> str:
    """A group with one of its choices, a misspelt one, several, or something else."""
    group = draw(st.sampled_from(GROUPS))
    offered = st.sampled_from(config_choices(group))
    several = st.lists(offered, min_size=2, max_size=3)
    value = draw(
        st.one_of(
            offered,
            offered,
            offered.flatmap(misspelt),
            several.map(",".join),
            several.map(lambda names: f"[{','.join(names)}]"),
            values,
        )
    )
    return f"{draw(st.sampled_from(['', '', '', '', '+', '~', '++']))}{group}={value}"


overrides = st.one_of(plain, plain, choice(), st.builds("~{}".format, keys), values)
lines = st.lists(overrides, min_size=1, max_size=4)


# --- what may come of them


@contextmanager
def patience() -> Iterator[None]:
    """An error in place of a hang."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no answer after {TIMEOUT} s")

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(TIMEOUT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def outcome(line: list[str]) -> list[str] | None:
    """What is wrong with a command line, by what `pgx train` calls before it starts anything; None when nothing is."""
    try:
        with patience():
            planned = expand_sweep(prepare(line))
            assert planned, "a sweep without a run"
            for only in planned[:2]:
                compose_valid(only)
    except UserError as error:
        return list(error.problems)
    return None


NAMES = {
    *KEYS,
    *SECTIONS,
    *GROUPS,
    *(f"{group}={name}" for group in GROUPS for name in config_choices(group)),
}


def names_something(problem: str, line: list[str]) -> bool:
    """Whether a line of an error has a key, or a text of the command line or a key of it."""
    texts = {" ".join(text.splitlines())[:100].strip() for text in line} | {repr(text)[:100] for text in line}
    own = {" ".join(re.split("[=@]", text.lstrip("+~"))[0].splitlines()) for text in line}
    own |= {key.split(".")[0] for key in own}
    if any(text and text in problem for text in texts | own):
        return True
    return bool(NAMES & set(re.findall(r"[\w./-]+(?:=[\w./-]+)?", problem)))


def run_check(line: list[str], folder: Path) -> None:
    found = outcome(line)
    if found is not None:
        assert found, "an error without words"
        for problem in found:
            assert problem.strip() and "\n" not in problem, problem
            assert names_something(problem, line), problem
    assert list(folder.iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run would be made."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


RELAXED = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "print_blob": False,
}


@settings(max_examples=25, **RELAXED)  # type: ignore[arg-type]
@given(line=lines)
def test_a_command_line_is_a_config_or_one_error(folder: Path, line: list[str]) -> None:
    run_check(line, folder)


@pytest.mark.slow
@settings(max_examples=10_000, **RELAXED)  # type: ignore[arg-type]
@given(line=lines)
def test_thousands_of_command_lines_are_configs_or_one_error_each(folder: Path, line: list[str]) -> None:
    run_check(line, folder)


@settings(max_examples=100, **RELAXED)  # type: ignore[arg-type]
@given(line=lines)
def test_expanding_a_sweep_gives_a_list_or_one_error(line: list[str]) -> None:
    """What stands before a config is composed, and costs a thousandth of it."""
    try:
        with patience():
            found = expand_sweep(prepare(line))
    except UserError as error:
        assert error.problems and all(names_something(problem, line) for problem in error.problems)
    else:
        assert 1 <= len(found) <= MAX_JOBS and all(len(job) == len(line) for job in found)


@settings(max_examples=50, **RELAXED)  # type: ignore[arg-type]
@given(line=st.lists(st.one_of(plain, st.sampled_from(["-m", "--cfg", "-c", "job", "--resolve", "-", "--", "-x", "-mm"])
                               , texts), max_size=4))  # fmt: skip
def test_flags_between_overrides_are_read_or_one_error(line: list[str]) -> None:
    try:
        options, rest = _options(line)
    except UserError as error:
        assert len(error.problems) == 1 and error.problems[0]
    else:
        assert set(rest) <= set(line) and options.multirun == bool({"-m"} & set(line))


# --- whole commands

WHOLE = [
    "train algo=",
    "train =",
    "train seed=1e400",
    "train seed=99999999999999999999999",
    "train env.num_envs=9007199254740993000000 algo=a3c",
    "train env.num_envs=4611686018427387904 algo=a3c runner.workers=3",
    "train policy=lstm policy.sequence_length=4611686018427387904",
    "train runner.rollout_steps=4611686018427387904 trainer.total_steps=5",
    "train seed=${seed}",
    "train algo.max_kl=${algo.max_kl}",
    "train run_dir=${run_dir}",
    "train label=${nope:1}",
    "train algo.damping=${oc.env:NO_SUCH_VARIABLE}",
    "train algo=glob(*)",
    "train seed=range(0,1000000000)",
    "train -m seed=range(0,1000000000)",
    "train -m seed=range(0,1000) env.num_envs=range(1,1000)",
    "train -m seed=range(0,3,0)",
    "train seed=range(3,0)",
    "train -m seed=range(3,0)",
    "train ~seed=0,1",
    "train -m seed=interval(0,1)",
    "train -m seed=glob(*)",
    "train -m env.obs_clip=5 env.normalize_obs=false,true",
    "train env=a:b",
    "train env=..x:b",
    "train env=:b",
    "train env=[a,b]",
    "train algo=[ppo,trpo]",
    "train algo={a:1}",
    "train ~algo",
    "train ~env",
    "train ~runner ~policy",
    "train env=null",
    "train algo@x=ppo",
    "train optimizer@critic_optimizer=sgd",
    "train +algo=ppo",
    "train hydra=x",
    "train hydra/launcher=nope",
    "train -m hydra/launcher=nope seed=0,1",
    "train hydra.run.dir=${nope}",
    "train --cfg",
    "train --cfg nope",
    "train --config-name=x",
    "train --config-dir=/tmp",
    "train --experimental-rerun=x.pickle",
    "train --version",
    "train -",
    "train --",
    "train dataset=x",
    "train algo=off_policy_reinforce dataset=" + "x" * 300,
    "train run_dir=" + "x" * 300,
    "train label=" + "x" * 300,
    "eval",
    "eval . --episodes 1e3",
    "eval . --seed x",
    "collect . --episodes 1",
    "sweep",
    "sweep resume",
    "sweep status . --trust",
    "sweep resume . seed=1",
    "envs a b",
    "nope",
]


@pytest.mark.parametrize("line", WHOLE, ids=lambda line: line[:60])
def test_a_whole_command_is_one_error_and_leaves_nothing(command: Command, tmp_path: Path, line: str) -> None:
    with patience():
        said = command(*line.split())
    assert said.code == 2, said.err
    assert said.problems and said.out == ""
    assert list(tmp_path.iterdir()) == []
