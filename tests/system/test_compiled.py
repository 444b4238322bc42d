"""Compiled and eager execution are equal to rounding, for any number of rows, and programs are reused by processes."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pgx.compiler import Eager, choose_engine, make_aot_engine
from pgx.compiler.choose import compilation_problem
from pgx.core.algorithm import Engine
from pgx.core.data import Observations
from pgx.core.errors import UserError
from pgx.ops.fisher import gauss_newton_product
from pgx.ops.optim import Adam
from tests.conftest import Make, parameters, resumed_run, small

pytestmark = pytest.mark.skipif(
    compilation_problem("cpu") is not None, reason=f"nothing compiles here: {compilation_problem('cpu')}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of programs for all tests of this file."""
    return tmp_path_factory.mktemp("programs")


class CommandResult(list[str]):
    """What an engine reports."""

    @property
    def compiled(self) -> int:
        return sum(line.startswith("compiling") for line in self)


@dataclass(frozen=True)
class Affine:
    slope: float

    def of(self, network: nn.Module, pair: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, ...]:
        left, right = pair
        return (
            self.slope * network(left[x]) + right[x].unsqueeze(-1),
            (left[x] * right[x].unsqueeze(-1)).mean(0),
        )


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def pair(rows: int) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 3, generator=stream), torch.randn(rows, generator=stream)


def close(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.allclose(x, y, atol=2e-6, rtol=1e-5) for x, y in zip(a, b, strict=True))


def bound(
    engine: Engine, network: nn.Module, rows: int, index: Tensor, slope: float = 2.0
) -> tuple[Tensor, ...]:
    return engine.bind(Affine(slope).of, network, pair(rows), rows=rows, ragged=[0])(index)


def test_one_program_serves_any_rows_networks_and_weights_of_a_kind(folder: Path) -> None:
    said = CommandResult()
    engine, network = make_aot_engine(folder, said.append), net()
    for rows, picked in ((50, 7), (64, 64), (31, 1), (2000, 997), (1009, 30)):
        index = torch.arange(picked) * 3 % rows
        assert close(bound(engine, network, rows, index), bound(Eager(), network, rows, index))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)  # in place, as training does
    index = torch.arange(5)
    assert close(bound(engine, network, 20, index), bound(Eager(), network, 20, index))
    other = net(seed=1)
    assert close(bound(engine, other, 20, index), bound(Eager(), other, 20, index))
    assert said.compiled == 1


@pytest.mark.slow
def test_another_constant_is_another_program(folder: Path) -> None:
    said = CommandResult()
    engine, index = make_aot_engine(folder, said.append), torch.arange(5)
    assert close(bound(engine, net(), 20, index, slope=-3.0), bound(Eager(), net(), 20, index, slope=-3.0))
    assert close(bound(engine, net(), 20, index), bound(Eager(), net(), 20, index))
    assert said.compiled == 1  # the previous test compiled the second, which is on disk


def test_a_program_on_disk_is_used_without_the_compiler(folder: Path) -> None:
    """The other process does not import torch's compiler, which takes seconds."""
    bound(make_aot_engine(folder, CommandResult().append), net(), 20, torch.arange(5))
    code = (
        "import sys\nfrom pathlib import Path\nimport torch\ntorch.set_num_threads(1)\n"
        "from pgx.compiler import make_aot_engine\nfrom tests.system.test_compiled import bound, net\n"
        f"said = []\nengine = make_aot_engine(Path({str(folder)!r}), said.append)\n"
        "print(bound(engine, net(), 20, torch.arange(5))[0].sum().item())\n"
        "print(said, 'torch._dynamo' in sys.modules, 'torch._inductor' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    number, rest = done.stdout.splitlines()
    assert rest == "[] False False"
    assert float(number) == pytest.approx(
        float(bound(Eager(), net(), 20, torch.arange(5))[0].detach().sum()), abs=1e-5
    )


@pytest.mark.slow
def test_a_truncated_program_is_compiled_again(folder: Path, tmp_path: Path) -> None:
    index = torch.arange(5)
    bound(
        make_aot_engine(folder, CommandResult().append), net(), 20, index
    )  # no-op if another test compiled it
    for path in folder.glob("*.so"):
        (tmp_path / path.name).write_bytes(path.read_bytes()[:1000])
    said = CommandResult()
    assert close(
        bound(make_aot_engine(tmp_path, said.append), net(), 20, index), bound(Eager(), net(), 20, index)
    )
    assert said.compiled == 1
    assert any("cannot be loaded" in line for line in said)


def undecided(x: Tensor) -> tuple[Tensor, ...]:
    """Branch in Python on the content of a tensor."""
    return (x + 1,) if bool(x.sum() > 0) else (x - 1,)


def distinct(x: Tensor) -> tuple[Tensor, ...]:
    """Return a tensor whose number of rows depends on the content of another."""
    return (torch.unique(x),)


def test_a_function_whose_shape_depends_on_data_is_not_compiled(folder: Path) -> None:
    said = CommandResult()
    x = torch.tensor([3.0, 1.0, 3.0])
    assert make_aot_engine(folder, said.append).bind(distinct)(x)[0].tolist() == [1.0, 3.0]
    assert "runs in eager mode" in said[-1]


def test_a_function_that_cannot_be_compiled_runs_eagerly_with_one_message(folder: Path) -> None:
    said = CommandResult()
    engine = make_aot_engine(folder, said.append)
    for x in (torch.ones(3), -torch.ones(3)):
        for _ in range(2):
            assert torch.equal(engine.bind(undecided)(x)[0], undecided(x)[0])
    assert [line for line in said if "runs in eager mode" in line] == said[1:]
    assert len(said) == 2


def regression(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return (network(x)[:, 0] - y).square().mean()


def swept(engine: Engine) -> tuple[Tensor, ...]:
    """Return losses and weights of 20 steps of Adam on minibatches of different sizes, with active clipping."""
    network = net()
    steps = Adam(1e-2, "linear", 0.5, beta1=0.9, beta2=0.99, epsilon=1e-8).make(network, engine)
    steps.anneal(0.5)
    losses = steps.step_minibatches(
        regression, pair(100), [torch.arange(20 + k) * (k + 1) % 100 for k in range(20)]
    )
    assert losses.max() - losses.min() > 0.01  # parameters have changed
    return (losses, *(p.detach() for p in network.parameters()))


def test_a_compilation_prints_only_that_it_compiles(folder: Path, tmp_path: Path) -> None:
    """In another process, where a CUDA toolkit is and no GPU, as on the login node of a cluster. (Of that only torch's
    CUDA build would speak.)"""
    code = (
        "from pathlib import Path\nimport torch\ntorch.set_num_threads(1)\n"
        "from pgx.compiler import make_aot_engine\nfrom tests.system.test_compiled import swept\n"
        f"swept(make_aot_engine(Path({str(folder)!r}), print))"
    )
    settings = os.environ | {"CUDA_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=settings
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["compiling", "compiled"]
    assert done.stderr == ""


def test_compiled_epochs_equal_eager_epochs(folder: Path) -> None:
    """The programs may be compiled here or earlier."""
    assert close(swept(Eager()), swept(make_aot_engine(folder, CommandResult().append)))


def test_prepared_products_equal_eager_products(folder: Path, make: Make) -> None:
    trainer = make(*small("trpo"), "env=CartPole-v1")
    policy = trainer.agent.policy
    seen = Observations(torch.randn(40, 4), torch.zeros(40, dtype=torch.int64))
    vector = torch.randn(sum(p.numel() for p in policy.parameters()))
    plain = Eager().prepare(gauss_newton_product, policy, seen, rows=40)(vector)
    said = CommandResult()
    compiled = make_aot_engine(folder, said.append).prepare(gauss_newton_product, policy, seen, rows=40)(
        vector
    )
    assert said.compiled == 1 and len(said) == 2  # it was not refused
    assert torch.allclose(plain, compiled, rtol=1e-4, atol=1e-6)
    trainer.runner.close()


def trained(make: Make, overrides: list[str], compile: str) -> Tensor:
    trainer = make(*overrides, f"trainer.compile={compile}", name=f"compiled-{compile}")
    trainer.train()
    return parameters(trainer)


@pytest.mark.parametrize(
    ("algo", "env"),
    [
        ("ppo", "Walker2d-v4"),
        pytest.param("trpo", "CartPole-v1", marks=pytest.mark.slow),
        pytest.param("a2c", "CartPole-v1", marks=pytest.mark.slow),
        pytest.param("actor_critic", "Walker2d-v4", marks=pytest.mark.slow),
        pytest.param("mdpo", "Walker2d-v4", marks=pytest.mark.slow),
        pytest.param("npg", "Walker2d-v4", marks=pytest.mark.slow),
        pytest.param("off_policy_reinforce", "CartPole-v1", marks=pytest.mark.slow),
        pytest.param("ppg", "Walker2d-v4", marks=pytest.mark.slow),
        pytest.param("ppo_kl", "Walker2d-v4", marks=pytest.mark.slow),
        pytest.param("reinforce", "CartPole-v1", marks=pytest.mark.slow),
        pytest.param("vtrace", "CartPole-v1", marks=pytest.mark.slow),
    ],
)
def test_a_compiled_run_equals_an_eager_run(
    algo: str,
    env: str,
    make: Make,
    programs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Compare after two iterations, because the environment amplifies rounding with every step."""
    overrides = [*small(algo), f"env={env}", "trainer.total_steps=300", "logger.console=plain"]
    compiled = trained(make, overrides, "true")
    assert "runs in eager mode" not in capsys.readouterr().out
    written = trained(make, overrides, "false")
    assert torch.allclose(compiled, written, atol=2e-4)
    assert not torch.equal(compiled, written)  # as in eager mode


def test_auto_gives_the_reason_for_not_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine("auto", 10_000, 10_000, "cpu").compiled
    assert not choose_engine("auto", 9_999, 10_000, "cpu").compiled
    assert choose_engine(True, 1, 10_000, "cpu").compiled
    assert not choose_engine(False, 10**9, 0, "cpu").compiled
    monkeypatch.setenv("CXX", "no-such-compiler")
    without = choose_engine("auto", 10_000, 10_000, "cpu")
    assert not without.compiled and "no-such-compiler" in without.reason
    with pytest.raises(UserError, match="no-such-compiler"):
        choose_engine(True, 1, 0, "cpu")


def test_a_run_without_a_compiler_prints_one_line_and_trains(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pgx", "train", "env=CartPole-v1", "algo=a2c", "trainer.total_steps=200"]
    command += [f"run_dir={tmp_path / 'run'}", "trainer.compile_min_steps=0", "logger.console=plain"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"CXX": "no-such-compiler"}
    )
    assert "not compiled (auto: there is no C++ compiler (no-such-compiler" in done.stdout
    assert [line for line in done.stdout.splitlines() if "C++" in line] == [done.stdout.splitlines()[0]]


@pytest.mark.parametrize("algo", ["ppo", pytest.param("trpo", marks=pytest.mark.slow)])
def test_a_resumed_compiled_run_ends_with_the_bits_of_an_uninterrupted_one(
    algo: str, make: Make, programs: Path
) -> None:
    """The same program on the same numbers gives the same bits, also with two threads."""
    env = "env=Walker2d-v4" if algo == "ppo" else "env=CartPole-v1"
    settings = [env, "trainer.compile=true", "trainer.total_steps=1200", "trainer.checkpoint_every=600"]
    whole = make(*small(algo), *settings, name="whole")
    whole.train()
    assert torch.equal(parameters(whole), parameters(resumed_run(make, *small(algo), *settings, at=600)))
