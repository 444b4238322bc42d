"""Names of update rules: what is wrong with one, and what pgx has for those of other libraries."""

import importlib
from dataclasses import is_dataclass

from pgx.algos import rule, rules
from pgx.core.paths import choices
from pgx.core.schema import nearest
from pgx.core.user_modules import hidden_file

_WHAT_A_RULE_HAS = ("discount", "uses", "conflicts", "estimate", "update")

# Other names for what pgx has: what to choose.
OTHER_NAMES = {
    "vpg": "algo=reinforce",
    "pg": "algo=reinforce",
    "policy_gradient": "algo=reinforce",
    "natural_policy_gradient": "algo=npg",
    "ppo2": "algo=ppo",
    "ppo_clip": "algo=ppo",
    "maskable_ppo": "algo=ppo",
    "ppo_lstm": "algo=ppo policy=lstm",
    "recurrent_ppo": "algo=ppo policy=lstm",
    "ac": "algo=actor_critic",
}
VALUE_BASED = (
    *("sac", "dqn", "ddqn", "td3", "ddpg", "rainbow", "c51", "qrdqn", "iqn", "tqc", "redq", "droq", "crossq"),
    *("q_learning", "sarsa", "her", "cql", "iql", "muzero"),
)


def rule_hint(name: str) -> str:
    """Return a clause for a message about a name that is no rule: what to choose, or why pgx does not have it."""
    plain = name.casefold().replace("-", "_")
    if plain in VALUE_BASED:
        return f"; {plain} is not one of the policy-gradient rules of pgx, which `pgx algos` lists"
    if plain in OTHER_NAMES:
        return f"; did you mean '{OTHER_NAMES[plain]}'?"
    return nearest(name, choices("algo"))


def rule_problem(name: str) -> str | None:
    """What is wrong with a rule's name, in words; None: there is such a rule. Imports the module that it names."""
    module_name, colon, class_name = name.rpartition(":")
    if not colon:
        return None if name in rules() else f"no rule '{name}'{rule_hint(name)}"
    try:
        own = rule(name)
    except AttributeError:
        offered = vars(importlib.import_module(module_name))
        hint = hidden_file(module_name) or nearest(class_name, offered)
        return f"module '{module_name}' was imported and has no class '{class_name}'{hint}"
    except (Exception, SystemExit) as error:  # whatever a module of the user's raises
        said = f"{type(error).__name__}: {error}{hidden_file(module_name)}"
        return f"module '{module_name}' cannot be imported: {said}"
    fields = getattr(own, "__dataclass_fields__", {})
    if lacking := [part for part in _WHAT_A_RULE_HAS if part not in fields and not hasattr(own, part)]:
        return f"{class_name} is no update rule: it has no {', '.join(lacking)} (see pgx.core.rule.Algorithm)"
    return None if is_dataclass(own) else f"{class_name} is no update rule: expected a dataclass"
