"""Path of configs/ and its choices."""

from pathlib import Path

ROOT_CONFIG = "train"  # configs/train.yaml, from which every run is composed


def config_dir() -> Path:
    """Return configs/: inside the package of an installed wheel, next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def config_choices(group: str) -> list[str]:
    """Return the names of the files of a group."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def config_groups() -> list[str]:
    """Return the names of the config groups."""
    return sorted(p.name for p in config_dir().iterdir() if p.is_dir() and p.name != "hydra")
