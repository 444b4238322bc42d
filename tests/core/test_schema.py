"""Types with ranges: what fits, how it is said, and that every violation is reported."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgx.core.schema import (
    INT_LIMIT,
    Count,
    Fraction,
    Index,
    NonNegative,
    OpenFraction,
    Positive,
    Range,
    check_fields,
    describe_type,
    matches_type,
    nearest,
    parameter_types,
    problems,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
not_numbers = st.one_of(st.text(), st.booleans(), st.none(), st.lists(st.integers()), st.just({}))


@given(finite, finite, finite, st.booleans(), st.booleans())
def test_a_range_holds_what_lies_between_its_ends(
    low: float, high: float, value: float, open_low: bool, open_high: bool
) -> None:
    inside = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    assert (value in Range(low, high, open_low, open_high)) is inside


@given(finite, st.booleans())
def test_an_end_belongs_to_a_range_unless_it_is_open(end: float, is_open: bool) -> None:
    assert (end in Range(low=end, open_low=is_open)) is not is_open
    assert (end in Range(high=end, open_high=is_open)) is not is_open


@given(finite)
def test_a_range_without_ends_holds_every_number(value: float) -> None:
    assert value in Range()


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Range(0.0), ">= 0"),
        (Range(0.0, open_low=True), "> 0"),
        (Range(0.0, 1.0), "in [0, 1]"),
        (Range(0.0, 1.0, open_low=True), "in (0, 1]"),
        (Range(0.0, 1.0, open_high=True), "in [0, 1)"),
        (Range(-20.0, 2.5, open_low=True, open_high=True), "in (-20, 2.5)"),
    ],
)
def test_a_range_is_written_as_in_a_paper(interval: Range, words: str) -> None:
    assert str(interval) == words


@given(finite)
def test_a_number_fits_exactly_where_it_lies_in_the_range(value: float) -> None:
    assert matches_type(value, Positive) is (value > 0)
    assert matches_type(value, NonNegative) is (value >= 0)
    assert matches_type(value, Fraction) is (0 <= value <= 1)
    assert matches_type(value, OpenFraction) is (0 < value < 1)


@given(st.integers() | st.integers(INT_LIMIT - 2, INT_LIMIT + 2))
def test_a_whole_number_fits_exactly_where_it_lies_in_the_range(value: int) -> None:
    assert matches_type(value, Count) is (1 <= value < INT_LIMIT)
    assert matches_type(value, Index) is (0 <= value < INT_LIMIT)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_fit_no_number(value: float) -> None:
    assert not any(matches_type(value, kind) for kind in (float, Positive, NonNegative, Fraction, int))


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_whole_numbers_are_numbers_and_numbers_are_not_whole(value: int) -> None:
    assert matches_type(value, float)
    assert matches_type(value, int)
    assert not matches_type(float(value), int)


def test_a_whole_number_too_large_for_a_float_does_not_fit_one() -> None:
    assert not matches_type(10**400, float)
    assert not matches_type(10**400, Positive)


@pytest.mark.parametrize("value", [True, False])
def test_a_truth_value_is_no_number_and_a_number_no_truth_value(value: bool) -> None:
    assert matches_type(value, bool)
    assert not any(matches_type(value, kind) for kind in (int, float, Count, Index, Positive, Fraction))
    assert not matches_type(int(value), bool)
    assert not matches_type(float(value), bool)


@given(not_numbers)
def test_other_types_do_not_match_numbers(value: Any) -> None:
    assert not any(matches_type(value, kind) for kind in (int, float, Count, Positive, Fraction))


@given(st.text())
def test_a_text_fits_text_alone(value: str) -> None:
    assert matches_type(value, str)
    assert not any(matches_type(value, kind) for kind in (bool, list[str], dict[str, str], type(None)))


@given(st.one_of(finite, not_numbers))
def test_everything_fits_any(value: Any) -> None:
    assert matches_type(value, Any)


@given(st.one_of(finite, st.integers(), not_numbers))
def test_a_union_takes_what_one_of_its_members_takes(value: Any) -> None:
    assert matches_type(value, Positive | None) is (matches_type(value, Positive) or value is None)
    assert matches_type(value, Count | str | bool) is (
        matches_type(value, Count) or matches_type(value, str) or matches_type(value, bool)
    )


@given(st.one_of(st.text(), st.sampled_from(["adam", "sgd"])))
def test_a_literal_takes_its_words_and_no_other(value: str) -> None:
    assert matches_type(value, Literal["adam", "sgd"]) is (value in ("adam", "sgd"))


def test_a_literal_compares_types_too() -> None:
    assert matches_type(1, Literal[1])
    assert not matches_type(True, Literal[1])
    assert not matches_type(1.0, Literal[1])
    assert matches_type(None, Literal["adam", None])
    assert not matches_type("None", Literal["adam", None])


@given(st.lists(st.integers(-3, 3)))
def test_a_list_fits_when_each_of_its_members_does(values: list[int]) -> None:
    assert matches_type(values, list[Count]) is all(value >= 1 for value in values)
    assert matches_type(tuple(values), list[Count]) is all(value >= 1 for value in values)
    assert matches_type([values], list[list[Count]]) is all(value >= 1 for value in values)


def test_a_list_is_neither_a_number_nor_a_text() -> None:
    assert not matches_type(64, list[Count])
    assert not matches_type("64", list[str])
    assert not matches_type({64: 64}, list[Count])


def test_a_mapping_fits_a_mapping_alone() -> None:
    assert matches_type({"a": [1]}, dict[str, Any])
    assert not matches_type([("a", 1)], dict[str, Any])


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number"),
        (str, "a text"),
        (Positive, "a number > 0"),
        (Count, "a whole number >= 1"),
        (Fraction, "a number in [0, 1]"),
        (OpenFraction, "a number in (0, 1)"),
        (Positive | None, "a number > 0 or null"),
        (Literal["adam", "sgd"], "one of adam, sgd"),
        (Literal["adam", None], "one of adam, null"),
        (list[Count], "a list, each a whole number >= 1"),
        (dict[str, Any], "a mapping"),
    ],
)
def test_an_annotation_is_described_in_words(annotation: Any, words: str) -> None:
    assert describe_type(annotation) == words


WORDS = ["max_kl", "damping", "line_search_steps"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("max_k", "max_kl"),
        ("maxkl", "max_kl"),
        ("dampnig", "damping"),
        ("line_search_step", "line_search_steps"),
    ],
)
def test_the_nearest_choice_is_offered_for_a_slip(word: str, meant: str) -> None:
    assert f"did you mean '{meant}'?" in nearest(word, WORDS)


@pytest.mark.parametrize("word", ["", "zzz", "42"])
def test_nothing_is_offered_for_what_resembles_nothing(word: str) -> None:
    assert nearest(word, WORDS) == ""
    assert nearest(word, []) == ""


@dataclass
class Rule:
    """A small rule with one field of each kind."""

    max_kl: Positive
    epochs: Count
    clip: Positive | None
    mode: Literal["off", "batch"]

    def __post_init__(self) -> None:
        check_fields(self)


GOOD: dict[str, Any] = {"max_kl": 0.01, "epochs": 10, "clip": None, "mode": "off"}


def test_the_signature_of_a_dataclass_and_of_a_function_keep_their_ranges() -> None:
    def make(size: Count, rate: Positive) -> None: ...

    assert parameter_types(Rule)["max_kl"] == Positive
    assert list(parameter_types(Rule)) == list(GOOD)
    assert {"size": Count, "rate": Positive}.items() <= parameter_types(make).items()


def test_good_values_have_no_problems() -> None:
    assert problems("algo", parameter_types(Rule), GOOD) == []
    assert Rule(**GOOD).max_kl == 0.01


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    assert problems("algo", parameter_types(Rule), {**GOOD, "max_k": 1}) == [
        "algo.max_k: unknown key; did you mean 'max_kl'?"
    ]


def test_a_missing_key_is_named_with_what_was_expected() -> None:
    values = {key: value for key, value in GOOD.items() if key != "epochs"}
    assert problems("algo", parameter_types(Rule), values) == [
        "algo.epochs: missing; expected a whole number >= 1"
    ]


def test_a_bad_value_is_named_with_what_was_expected_and_what_came() -> None:
    assert problems("algo", parameter_types(Rule), {**GOOD, "max_kl": "abc"}) == [
        "algo.max_kl: expected a number > 0, got 'abc'"
    ]


def test_a_key_of_the_top_level_has_no_prefix() -> None:
    assert problems("", {"seed": Index}, {"seed": -1}) == ["seed: expected a whole number >= 0, got -1"]


def test_all_problems_are_reported_together() -> None:
    found = problems("algo", parameter_types(Rule), {"max_k": 1, "max_kl": -1, "epochs": 1.5, "clip": True})
    assert len(found) == 5
    for key in ("algo.max_k:", "algo.max_kl:", "algo.epochs:", "algo.clip:", "algo.mode:"):
        assert sum(line.startswith(key) for line in found) == 1


@given(st.one_of(finite, st.integers(), not_numbers))
def test_problems_and_fits_agree(value: Any) -> None:
    assert (problems("", {"key": Positive | None}, {"key": value}) == []) is matches_type(
        value, Positive | None
    )


def test_an_instance_with_bad_fields_is_refused_naming_each_of_them() -> None:
    with pytest.raises(ValueError) as caught:
        Rule(max_kl=-1.0, epochs=True, clip=0.0, mode="always")  # type: ignore[arg-type]
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["Rule.max_kl", "Rule.epochs", "Rule.clip", "Rule.mode"]


def test_a_field_of_two_ranges_must_lie_in_both() -> None:
    both = Annotated[float, Range(0.0), Range(-1.0, 0.5)]
    assert [matches_type(value, both) for value in (-0.5, 0.0, 0.5, 0.7)] == [False, True, True, False]
