"""Where configs/ is, and which choices it offers."""

from pathlib import Path


def config_dir() -> Path:
    """configs/: inside the package where pgx is installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def choices(group: str) -> list[str]:
    """Names of the files of a group."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def groups() -> list[str]:
    """Names of the groups that a person chooses from."""
    return sorted(p.name for p in config_dir().iterdir() if p.is_dir() and p.name != "hydra")
