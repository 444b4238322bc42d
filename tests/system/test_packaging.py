"""A wheel contains its configs and runs in another environment."""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_pgx_runs_from_a_wheel_far_from_its_checkout(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("pgx_rl-*.whl")
    home = tmp_path / "venv"
    venv.create(home, with_pip=True, symlinks=True)
    python = home / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    # The dependencies are those of this environment. A path in a .pth file adds them without the editable
    # install of pgx, whose .pth file is not read from there.
    (site,) = home.glob("lib/python*/site-packages")
    dependencies = next(p for p in sys.path if p.endswith("site-packages"))
    (site / "dependencies.pth").write_text(dependencies + "\n")
    far = tmp_path / "elsewhere"
    far.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def pgx(*arguments: str) -> str:
        done = subprocess.run(
            [str(home / "bin" / "pgx"), *arguments], cwd=far, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "trpo" in pgx("algos")
    assert (site / "pgx" / "compiler" / "scan.cpp").is_file()
    assert (site / "pgx" / "py.typed").is_file()
    where = subprocess.run(
        [str(python), "-c", "import pgx.core.paths; print(pgx.core.paths.config_dir())"],
        cwd=far,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert where.stdout.strip() == str(site / "pgx" / "configs")
    pgx(
        "train",
        "algo=ppo",
        "env=CartPole-v1",
        "trainer.total_steps=2048",
        "run_dir=run",
        "logger.sinks=[]",
    )
    assert (far / "run" / "summary.json").is_file()
    # Hydra finds pgx's plugins in the wheel: every sweep uses one.
    pgx(
        "train",
        "-m",
        "seed=0,1",
        "algo=a2c",
        "env=CartPole-v1",
        "trainer.total_steps=100",
        "hydra.sweep.dir=sweep",
    )
    assert "2 finished" in pgx("sweep", "status", "sweep")
    for name in ("joblib", "ray", "submitit"):
        assert (site / "hydra_plugins" / "pgx_launchers" / f"{name}_launcher.py").is_file()
