"""The table of scripts/mutate.py fits the code: a mutation that cannot be made would never be missed."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutate", ROOT / "scripts" / "mutate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate"] = module  # where its dataclass looks for its types
    spec.loader.exec_module(module)
    return module


MUTATIONS = script().mutations()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_a_mutation_changes_its_file_in_one_place(mutation) -> None:  # type: ignore[no-untyped-def]
    source = (ROOT / mutation.file).read_text()
    assert mutation.mutated(source) != source


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_the_tests_of_a_mutation_are_there_and_in_make_test(mutation) -> None:  # type: ignore[no-untyped-def]
    for test in mutation.tests:
        path, _, name = test.partition("::")
        assert not path.startswith(("tests/system/", "tests/learning/"))
        assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text()


def test_names_of_mutations_differ() -> None:
    assert set(Counter(mutation.name for mutation in MUTATIONS).values()) <= {1}
