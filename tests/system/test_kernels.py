"""Just-in-time compilation, as for GPUs but on the CPU, equals eager execution."""

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from pgx.compiler import Eager, EngineChoice, choose_engine, make_engine, make_jit_engine
from pgx.compiler.choose import compilation_problem
from pgx.core.data import Observations
from pgx.core.errors import UserError
from pgx.ops.fisher import gauss_newton_product
from tests.conftest import Make, small
from tests.system.test_compiled import CommandResult, bound, close, net, swept, undecided

needs_compiler = pytest.mark.skipif(
    compilation_problem("cpu") is not None, reason=f"nothing compiles here: {compilation_problem('cpu')}"
)


def once() -> AbstractContextManager[None]:
    """Raise an error if the compiler recompiles a function for another size."""
    import torch._dynamo

    context: AbstractContextManager[None] = torch._dynamo.config.patch(error_on_recompile=True)
    return context


@needs_compiler
def test_one_kernel_serves_any_rows_networks_and_weights_of_a_kind(tmp_path: Path) -> None:
    said = CommandResult()
    engine, network = make_jit_engine(tmp_path, said.append), net()
    for rows, picked in ((50, 7), (64, 64), (31, 2), (2000, 997), (1009, 30)):
        index = torch.arange(picked) * 3 % rows
        with once():
            assert close(bound(engine, network, rows, index), bound(Eager(), network, rows, index))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)  # in place, as training does
    for other in (network, net(seed=1)):
        index = torch.arange(5)
        assert close(bound(engine, other, 20, index), bound(Eager(), other, 20, index))
    assert len(said) == 2 and said.compiled == 1


@needs_compiler
def test_a_gpu_gets_kernels_and_other_functions_run_eagerly() -> None:
    said = CommandResult()
    engine = make_engine(EngineChoice(True, "asked for"), "cuda", said.append)
    for x in (torch.ones(3), -torch.ones(3)):
        assert torch.equal(engine.bind(undecided)(x)[0], undecided(x)[0])
    assert said[0] == "compiling undecided" and "runs in eager mode" in said[1] and len(said) == 2


@needs_compiler
def test_compiled_epochs_equal_eager_epochs(tmp_path: Path) -> None:
    assert close(swept(Eager()), swept(make_jit_engine(tmp_path, CommandResult().append)))


@needs_compiler
def test_compiled_products_equal_eager_products_for_any_rows(make: Make, tmp_path: Path) -> None:
    trainer = make(*small("trpo"), "env=CartPole-v1")
    policy, said = trainer.agent.policy, CommandResult()
    engine = make_jit_engine(tmp_path, said.append)
    for rows in (40, 41, 1250):
        seen = Observations(torch.randn(rows, 4), torch.zeros(rows, dtype=torch.int64))
        vector = torch.randn(sum(p.numel() for p in policy.parameters()))
        plain = Eager().prepare(gauss_newton_product, policy, seen, rows=rows)(vector)
        with once():
            compiled = engine.prepare(gauss_newton_product, policy, seen, rows=rows)(vector)
        assert torch.allclose(plain, compiled, rtol=1e-4, atol=1e-6)
    assert len(said) == 2 and said.compiled == 1
    trainer.runner.close()


def test_a_gpu_without_triton_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    chosen = choose_engine("auto", 10, 1, "cuda")
    assert not chosen.compiled and "Triton" in chosen.reason
    with pytest.raises(UserError, match="Triton"):
        choose_engine(True, 10, 1, "cuda")
