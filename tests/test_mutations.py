"""The mutations of scripts/mutations match the current code and tests."""

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
    sys.modules["mutate"] = module  # dataclasses look up their module in sys.modules
    spec.loader.exec_module(module)
    return module


def test_each_mutation_changes_one_place_and_its_tests_are_in_the_fast_tier() -> None:
    mutations = script().mutations()
    assert set(Counter(mutation.name for mutation in mutations).values()) == {1}
    for mutation in mutations:
        source = (ROOT / mutation.file).read_text()
        assert mutation.mutated(source) != source
        for test in mutation.tests:
            path, _, name = test.partition("::")
            assert not path.startswith(("tests/system/", "tests/learning/")), mutation.name
            assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text(), mutation.name


def test_the_mutated_text_must_occur_exactly_once() -> None:
    mutation = script().Mutation("a name", "a file", "a", "b", ())
    for source in ("aa", "c"):
        with pytest.raises(ValueError, match="occurs"):
            mutation.mutated(source)


def test_mutations_run_the_tests_of_make_test() -> None:
    assert script().fast_tests() == "not system and not slow"
