"""Configs of runs that earlier versions wrote."""

from pathlib import Path

import pytest

from pgx.config import check
from pgx.config.stored import read_config

STORED = sorted((Path(__file__).parent / "stored").glob("*.yaml"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_config_of_an_earlier_version_can_be_used(path: Path) -> None:
    """A key that has been added since takes the value that stands for what was done before."""
    cfg = read_config(path)
    check(cfg)
    assert cfg.env.normalizer_warmup_steps == 0
