"""docs/config.md agrees with configs/ and the types, and describes every key."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pgx.config.compose import compose, hydra_config
from pgx.config.reference import field_comments, key_comments
from pgx.core.paths import config_choices
from scripts.config_reference import page
from scripts.migration_table import table

ROOT = Path(__file__).parents[2]
GROUPS = ("algo", "env", "policy", "critic", "optimizer", "critic_optimizer", "runner", "experiment")
PAGE = (ROOT / "docs" / "config.md").read_text()
ROWS = re.findall(r"^\| `([\w.]+)` \|(.*)\|$", PAGE, re.MULTILINE)


def test_the_page_is_up_to_date() -> None:
    assert page() == PAGE, "python -m scripts.config_reference > docs/config.md"


def test_the_table_of_names_in_other_libraries_is_up_to_date() -> None:
    assert table() in (ROOT / "docs" / "migrating.md").read_text(), "python -m scripts.migration_table"


def test_every_key_has_a_type_a_value_and_a_meaning() -> None:
    assert len(ROWS) > 200
    for key, rest in ROWS:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", rest)]
        assert all(cells), key


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_of_every_choice_is_there(group: str) -> None:
    named = {key for key, _ in ROWS}
    # default.yaml has all keys of environments; it has no id and cannot be chosen.
    for name in ["CartPole-v1", "Swimmer-v5"] if group == "env" else config_choices(group):
        composed = OmegaConf.to_container(compose([f"{group}={name}"]), resolve=False)
        missing = set(_keys(composed)) - named
        assert not missing, f"{group}={name}"


def test_every_key_of_every_search_and_launcher_is_there() -> None:
    named = {key for key, _ in ROWS}
    for name in config_choices("sweep"):
        search = OmegaConf.to_container(compose([f"sweep={name}"]), resolve=False)
        assert isinstance(search, dict)
        assert {f"sweep.{key}" for key in search["sweep"]} <= named
    for path in (ROOT / "configs" / "hydra" / "launcher").glob("*.yaml"):
        launcher = OmegaConf.to_container(
            hydra_config([f"hydra/launcher={path.stem}"]).launcher, resolve=False
        )
        assert {f"hydra.launcher.{key}" for key in _keys(launcher) if key != "_target_"} <= named


def _keys(values: Any, prefix: str = "") -> Iterator[str]:
    """Return dotted keys, without names of choices and without keys of sweeps, which have another test."""
    for key, value in values.items():
        if isinstance(value, dict) and value and key != "sweep":
            yield from _keys(value, f"{prefix}{key}.")
        elif key not in ("name", "sweep"):
            yield prefix + key


def test_a_comment_describes_the_key_on_its_line_or_below(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "# of the file\nfirst: 1\n# above\n# it\nsecond: [1, 2] # behind it\nthird: 3\n"
        "section: # of the section\n  # inside\n  fourth: 'a # b'\n"
    )
    assert key_comments(file) == {
        "second": "behind it",
        "section": "of the section",
        "section.fourth": "inside",
    }


class Fields:
    """Dataclass with comments, for the next test."""

    # over
    # two lines
    first: int
    second: int  # beside it
    third: int  # within
    fourth: int


def test_the_comment_of_a_field_is_on_its_line_or_above() -> None:
    assert field_comments(Fields) == {
        "first": "over two lines", "second": "beside it", "third": "within", "fourth": "",
    }  # fmt: skip
