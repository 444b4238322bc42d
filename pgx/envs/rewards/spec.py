"""Reward of the config as plain values, and its validation."""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from pgx.core.imports import hidden_file
from pgx.core.schema import format_value, nearest, problems
from pgx.envs.rewards.terms import QUANTITIES, TERMS, is_quantity, quantity_problem, signal_of

ENVIRONMENT = "environment"  # name of the part that is the environment's own reward
_NAME = re.compile(r"[A-Za-z]\w*")


@dataclass(frozen=True)
class RewardSpec:
    """Reward of a step: a weighted sum of the environment's own reward and of terms."""

    name: str  # to group and compare runs
    environment: float  # weight of the environment's own reward; 0: the terms replace it
    # A mapping for each: weight, the parameters of the term's function, and `function` unless it has the term's name.
    terms: dict[str, Any]

    @property
    def is_shaped(self) -> bool:
        """Return whether the reward differs from the environment's own."""
        return self.environment != 1.0 or any(values["weight"] for values in self.terms.values())


NO_SHAPING = RewardSpec("none", 1.0, {})


@dataclass(frozen=True)
class Term:
    """Function of a reward term, with its weight and its parameters from the config."""

    name: str
    weight: float
    function: Callable[..., Any]
    quantities: tuple[str, ...]  # parameters that come from the step
    values: Mapping[str, Any]  # parameters that come from the config


def build_terms(spec: RewardSpec) -> list[Term]:
    """Return the terms of a valid spec whose weight is not 0; imports the functions."""
    return [_build_term(name, values) for name, values in spec.terms.items() if values["weight"]]


def _build_term(name: str, values: Mapping[str, Any]) -> Term:
    function = _resolve_function(_function_name(name, values))
    quantities = tuple(each for each in inspect.signature(function).parameters if is_quantity(each))
    own = {key: value for key, value in values.items() if key not in ("weight", "function")}
    return Term(name, float(values["weight"]), function, quantities, own)


def _function_name(name: str, values: Mapping[str, Any]) -> str:
    return str(values.get("function", name))


def user_functions(terms: object) -> list[str]:
    """Return the dotted names of user-defined functions in terms, which may be invalid; imports nothing."""
    if not isinstance(terms, Mapping):
        return []
    named = [str(values.get("function", "")) for values in terms.values() if isinstance(values, Mapping)]
    return [name for name in named if "." in name]


def _resolve_function(name: str) -> Callable[..., Any]:
    """Return the function of a term by its name in TERMS or its dotted name.

    Raises:
        ValueError: it does not exist; the message suggests similar names.
    """
    module, dot, function = name.rpartition(".")
    if not dot:
        if name not in TERMS:
            raise ValueError(
                f"no term '{name}'{nearest(name, TERMS)}; there are {', '.join(TERMS)}, and function: module.name for "
                "a function in your module"
            )
        return TERMS[name]
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise ValueError(
            f"module '{module}' cannot be imported: {type(error).__name__}: {error}{hidden_file(module)}"
        ) from error
    found = getattr(loaded, function, None)
    if not callable(found):
        offered = [each for each in vars(loaded) if callable(getattr(loaded, each))]
        hint = hidden_file(module) or nearest(function, offered)
        raise ValueError(f"module '{module}' has no function '{function}'{hint}")
    return found  # type: ignore[no-any-return]


def reward_problems(spec: RewardSpec, env_id: str, kwargs: Mapping[str, Any]) -> list[str]:
    """Return the problems of a reward that can be found without the environment; empty: none."""
    found = []
    if not spec.environment and not any(
        isinstance(values, Mapping) and values.get("weight") for values in spec.terms.values()
    ):
        found.append(
            "reward: all weights are 0; set reward.environment=1 for the environment's own, or add a term"
        )
    for name, values in spec.terms.items():
        found += [f"reward.terms.{name}{problem}" for problem in _term_problems(name, values, env_id, kwargs)]
    return found


def _term_problems(name: str, values: object, env_id: str, kwargs: Mapping[str, Any]) -> list[str]:
    if not _NAME.fullmatch(name) or name == ENVIRONMENT:
        return [": expected a name of letters, digits and _, other than environment"]
    if not isinstance(values, Mapping):
        return [
            f": expected weight and the term's parameters, e.g. {{weight: 1.0}}, got {format_value(values)}"
        ]
    try:
        function = _resolve_function(_function_name(name, values))
        expected = _expected_values(function, values)
    except ValueError as error:
        return [f": {error}"]
    given = {key: value for key, value in values.items() if key != "function"}
    found = [f".{line}" for line in problems("", {"weight": float} | expected, given)]
    for missing in expected.keys() - given.keys():
        if similar := nearest(missing, QUANTITIES):  # likely a misspelled quantity
            found.append(f": {missing} is not a quantity of a step{similar}")
    for quantity in filter(is_quantity, inspect.signature(function).parameters):
        if problem := quantity_problem(quantity, env_id, "xml_file" in kwargs):
            found.append(f": parameter {quantity} is unavailable for {env_id}: {problem}")
    return found


def _expected_values(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a function takes from the config, with their annotations.

    Raises:
        ValueError: it has a parameter without a name (*args, **kwargs, positional-only).
    """
    try:
        parameters = inspect.signature(function).parameters
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise ValueError(f"its parameters cannot be read: {error}") from error
    expected: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"it takes {parameter}; a term's parameters have names: {', '.join(QUANTITIES)}")
        if not is_quantity(name) and (parameter.default is parameter.empty or name in values):
            expected[name] = hints.get(name, Any)
    return expected


def required_signals(spec: RewardSpec) -> dict[str, str]:
    """Return the signals that a backend must read for the terms: the name of each with a term that needs it."""
    return {
        signal: term.name
        for term in build_terms(spec)
        for quantity in term.quantities
        if (signal := signal_of(quantity)) is not None
    }
