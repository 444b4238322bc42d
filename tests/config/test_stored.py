"""Configs of runs that earlier versions wrote."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pgx.config.stored import ADDED_KEYS, read_config
from pgx.config.validate import validate

STORED = sorted((Path(__file__).parent / "stored").glob("*.yaml"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_config_of_an_earlier_version_can_be_used(path: Path) -> None:
    """A key that has been added since takes the value that stands for what was done before."""
    cfg = read_config(path)
    validate(cfg)
    assert cfg.env.normalizer_warmup_steps == 0


def test_a_value_of_a_config_beats_what_earlier_versions_lacked(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    cfg = read_config(STORED[0])
    assert all(
        cfg[section][key] == value for section, added in ADDED_KEYS.items() for key, value in added.items()
    )
    cfg.env.normalizer_warmup_steps, cfg.trainer.eval_max_steps = 77, 99
    OmegaConf.save(cfg, path)
    again = read_config(path)
    assert (again.env.normalizer_warmup_steps, again.trainer.eval_max_steps) == (77, 99)
