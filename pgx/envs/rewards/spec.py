"""A reward as plain values, from the config, and what is wrong with it."""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from pgx.core.imports import hidden_file
from pgx.core.schema import nearest, problems, shown
from pgx.envs.rewards.terms import QUANTITIES, TERMS, is_quantity, quantity_problem, signal_of

ENVIRONMENT = "environment"  # the part of the reward that is the environment's own
_NAME = re.compile(r"[A-Za-z]\w*")


@dataclass(frozen=True)
class RewardSpec:
    """What is paid for a step: a weighted sum of the environment's own reward and of terms."""

    name: str  # what this reward is called, for those who compare runs
    environment: float  # weight of the environment's own reward; 0: the terms replace it
    # Each a mapping: weight, what the term's function takes, and `function` where the term has another name than it.
    terms: dict[str, Any]

    @property
    def shapes(self) -> bool:
        """Whether it is anything but the environment's own reward."""
        return self.environment != 1.0 or any(values["weight"] for values in self.terms.values())


NO_SHAPING = RewardSpec("none", 1.0, {})


@dataclass(frozen=True)
class Term:
    """A function with its values, ready to be asked."""

    name: str
    weight: float
    function: Callable[..., Any]
    needs: tuple[str, ...]  # quantities
    values: Mapping[str, Any]


def build_terms(plan: RewardSpec) -> list[Term]:
    """The terms of a sound plan, those that weigh nothing left out; imports functions of the user's."""
    return [_term(name, values) for name, values in plan.terms.items() if values["weight"]]


def _term(name: str, values: Mapping[str, Any]) -> Term:
    function = _resolve_function(_function_name(name, values))
    needs = tuple(each for each in inspect.signature(function).parameters if is_quantity(each))
    own = {key: value for key, value in values.items() if key not in ("weight", "function")}
    return Term(name, float(values["weight"]), function, needs, own)


def _function_name(name: str, values: Mapping[str, Any]) -> str:
    return str(values.get("function", name))


def functions_of(terms: object) -> list[str]:
    """Dotted names of functions of the user's that terms name; nothing is imported, and nothing taken for granted."""
    if not isinstance(terms, Mapping):
        return []
    named = [str(values.get("function", "")) for values in terms.values() if isinstance(values, Mapping)]
    return [name for name in named if "." in name]


def _resolve_function(name: str) -> Callable[..., Any]:
    """A term's function by its name, or by its dotted name.

    Raises:
        ValueError: there is none; the message says what was found instead.
    """
    module, dot, function = name.rpartition(".")
    if not dot:
        if name not in TERMS:
            raise ValueError(
                f"no term '{name}'{nearest(name, TERMS)}; there are {', '.join(TERMS)}, and function: module.name for "
                "one of your own"
            )
        return TERMS[name]
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a module of the user's raises
        raise ValueError(
            f"module '{module}' cannot be imported: {type(error).__name__}: {error}{hidden_file(module)}"
        ) from error
    found = getattr(loaded, function, None)
    if not callable(found):
        offered = [each for each in vars(loaded) if callable(getattr(loaded, each))]
        hint = hidden_file(module) or nearest(function, offered)
        raise ValueError(f"module '{module}' has no function '{function}'{hint}")
    return found  # type: ignore[no-any-return]


def reward_problems(plan: RewardSpec, env_id: str, kwargs: Mapping[str, Any]) -> list[str]:
    """What is wrong with a reward, as far as the environment's id tells; empty when nothing is."""
    found = []
    if not plan.environment and not any(
        isinstance(values, Mapping) and values.get("weight") for values in plan.terms.values()
    ):
        found.append("reward: nothing is paid; reward.environment=1 is the environment's own, or a term")
    for name, values in plan.terms.items():
        found += [f"reward.terms.{name}{said}" for said in _term_problems(name, values, env_id, kwargs)]
    return found


def _term_problems(name: str, values: object, env_id: str, kwargs: Mapping[str, Any]) -> list[str]:
    if not _NAME.fullmatch(name) or name == ENVIRONMENT:
        return [": expected a name of letters, digits and _, other than environment"]
    if not isinstance(values, Mapping):
        return [f": expected weight and what the term takes, e.g. {{weight: 1.0}}, got {shown(values)}"]
    try:
        function = _resolve_function(_function_name(name, values))
        expected = _expected(function, values)
    except ValueError as error:
        return [f": {error}"]
    given = {key: value for key, value in values.items() if key != "function"}
    found = [f".{line}" for line in problems("", {"weight": float} | expected, given)]
    for missing in expected.keys() - given.keys():
        if meant := nearest(missing, QUANTITIES):  # of a function whose parameter was to be one
            found.append(f": {missing} is no quantity of a step{meant}")
    for quantity in filter(is_quantity, inspect.signature(function).parameters):
        if problem := quantity_problem(quantity, env_id, "xml_file" in kwargs):
            found.append(f": it takes {quantity}, which is not there on {env_id}: {problem}")
    return found


def _expected(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a function takes from the config, with their annotations.

    Raises:
        ValueError: it takes something that has no name.
    """
    try:
        taken = inspect.signature(function).parameters
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise ValueError(f"its parameters cannot be read: {error}") from error
    expected: dict[str, Any] = {}
    for name, parameter in taken.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"it takes {parameter}; a term's parameters have names: {', '.join(QUANTITIES)}")
        if not is_quantity(name) and (parameter.default is parameter.empty or name in values):
            expected[name] = hints.get(name, Any)
    return expected


def required_signals(plan: RewardSpec) -> dict[str, str]:
    """What a backend has to read beside a step's own numbers: each reading with the term that asks for it."""
    return {
        signal: term.name
        for term in build_terms(plan)
        for need in term.needs
        if (signal := signal_of(need)) is not None
    }
