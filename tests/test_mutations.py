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


def test_each_mutation_is_of_one_place_and_its_tests_are_in_make_test() -> None:
    mutations = script().mutations()
    assert set(Counter(mutation.name for mutation in mutations).values()) == {1}
    for mutation in mutations:
        source = (ROOT / mutation.file).read_text()
        assert mutation.mutated(source) != source
        for test in mutation.tests:
            path, _, name = test.partition("::")
            assert not path.startswith(("tests/system/", "tests/learning/")), mutation.name
            assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text(), mutation.name


def test_a_text_that_is_there_twice_or_not_at_all_is_refused() -> None:
    mutation = script().Mutation("a name", "a file", "a", "b", ())
    for source in ("aa", "c"):
        with pytest.raises(ValueError, match="occurs"):
            mutation.mutated(source)
