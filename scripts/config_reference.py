"""Print the reference of all config keys: `python -m scripts.config_reference > docs/config.md`.

Types and ranges are from annotations, values and most meanings from configs/, meanings of a rule's keys from its
dataclass.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgx.algos import rule, rules
from pgx.config.reference import dotted_items, field_comments, file_description, key_comments, read_yaml
from pgx.config.run_config import FIXED_SECTIONS, NAMED_SECTIONS, SearchConfig, TopLevelConfig, keys_of_choice
from pgx.core.paths import config_choices, config_dir
from pgx.core.schema import describe_type, parameter_types

CONFIGS = config_dir()
HEADING = """\
# Config

`python -m scripts.config_reference > docs/config.md` generates this page from configs/ and from types in the code.

The config of a run is composed of one file from each group. Every value can be changed on the command line:

    pgx train algo=ppo policy.hidden=[32,32] algo.clip_range=0.1 env=Hopper-v5 env.num_envs=32

`group=choice` selects another file, `group.key=value` sets a value. The command line takes precedence over
`experiment=NAME`, which takes precedence over what the file of the algo sets for other groups (rollout length,
optimizer, ...), which takes precedence over all other files. `pgx train --cfg job ...` prints the composed config,
`pgx train --help ...` every key with its value and meaning. Before anything starts, pgx reports all unknown keys,
values out of range, contradictions, and keys that the other choices leave unused, in one message.

A value `???` must be given. `${env.discount}` is the value of that key. The meaning of a key explains `null`.
"""
TABLE = ["| key | takes | value | meaning |", "|---|---|---|---|"]


def page() -> str:
    """Return the text of docs/config.md."""
    train = CONFIGS / "train.yaml"
    lines = [HEADING, "## Run", ""]
    lines += _rows("", parameter_types(TopLevelConfig), train)
    for section in ("trainer", "health"):
        lines += [
            "",
            f"## {section}",
            "",
            *_rows(section, parameter_types(FIXED_SECTIONS[section]), train, below=section),
        ]
    logger = CONFIGS / "logger" / "default.yaml"
    lines += ["", "## logger", "", *_rows("logger", parameter_types(FIXED_SECTIONS["logger"]), logger)]
    lines += ["", *_environments(), "", *_rewards(), "", *_rules()]
    for section in NAMED_SECTIONS:
        lines += ["", *_named(section)]
    lines += ["", *_experiments(), "", *_searches(), "", *_launchers()]
    return "\n".join(lines) + "\n"


def _environments() -> list[str]:
    default = CONFIGS / "env" / "default.yaml"
    return [
        "## env",
        "",
        "`env=ID` takes any id that is registered with Gymnasium, `env=module:ID` one that your module registers. The",
        "environments of this table have a file; all others use the values below.",
        "",
        "| file | sets | reason |",
        "|---|---|---|",
        *(
            f"| `env={path.stem}` | {_sets(path)} | {_cell(file_description(path))} |"
            for path in sorted(default.parent.glob("*.yaml"))
            if path != default
        ),
        "",
        *_rows("env", parameter_types(FIXED_SECTIONS["env"]), default),
    ]


def _rewards() -> list[str]:
    own = CONFIGS / "reward" / "none.yaml"
    return [
        "## reward",
        "",
        "`reward=NAME` selects [the reward of a step](rewards.md). The values below are those of `reward=none`.",
        "",
        "| file | description |",
        "|---|---|",
        *(
            f"| `reward={name}` | {_cell(file_description(own.with_stem(name)))} |"
            for name in config_choices("reward")
        ),
        "",
        *_rows("reward", parameter_types(FIXED_SECTIONS["reward"]), own),
    ]


def _rules() -> list[str]:
    lines = [
        "## algo",
        "",
        "`algo=NAME` selects one of these rules, `algo=module:Class` [your own](tutorials/own_rule.md).",
    ]
    for name in config_choices("algo"):
        path = CONFIGS / "algo" / f"{name}.yaml"
        lines += ["", f"### algo={name}", "", f"{file_description(path)} [Page](algorithms/{name}.md)."]
        lines += ["", f"Values in other groups: {_sets(path, but='algo')}."]
        if name in rules():
            lines += ["", *_rows("algo", parameter_types(rule(name)), path, below="algo", source=rule(name))]
    return lines


def _named(section: str) -> list[str]:
    lines = [f"## {section}", "", f"`{section}=NAME`, NAME one of {', '.join(config_choices(section))}."]
    for name in config_choices(section):
        path = CONFIGS / section / f"{name}.yaml"
        keys = {key: hint for key, hint in keys_of_choice(section, name).items() if key != "name"}
        about = file_description(path) or key_comments(path).get("name", "")
        lines += ["", f"### {section}={name}", "", *([about[0].upper() + about[1:], ""] if about else [])]
        lines += _rows(section, keys, path) if keys else ["No other keys."]
    return lines


def _experiments() -> list[str]:
    lines = [
        "## experiment",
        "",
        "`experiment=NAME` sets several groups and keys; the command line takes precedence.",
        "",
    ]
    lines += ["| file | description | sets |", "|---|---|---|"]
    for name in config_choices("experiment"):
        path = CONFIGS / "experiment" / f"{name}.yaml"
        lines.append(f"| `experiment={name}` | {_cell(file_description(path))} | {_sets(path)} |")
    return lines


def _searches() -> list[str]:
    lines = [
        "## sweep",
        "",
        "`pgx train -m sweep=NAME` [searches for hyperparameters](sweeps.md). The searches are:",
        "",
    ]
    for name in config_choices("sweep"):
        lines.append(f"- `sweep={name}`: {file_description(CONFIGS / 'sweep' / f'{name}.yaml')}")
    example = CONFIGS / "sweep" / "ppo_cartpole.yaml"
    lines += ["", "The values are those of `sweep=ppo_cartpole`.", ""]
    return [*lines, *_rows("sweep", parameter_types(SearchConfig), example, source=SearchConfig)]


def _launchers() -> list[str]:
    lines = [
        "## hydra/launcher",
        "",
        "`hydra/launcher=NAME` selects where [the runs of a sweep](sweeps.md) run.",
    ]
    for path in sorted((CONFIGS / "hydra" / "launcher").glob("*.yaml")):
        written = key_comments(path)
        lines += [
            "",
            f"### hydra/launcher={path.stem}",
            "",
            file_description(path),
            "",
            "| key | value | meaning |",
            "|---|---|---|",
        ]
        for key, value in dotted_items(read_yaml(path)):
            if key != "_target_":
                shown = "..." if isinstance(value, dict) else f"`{_text(value)}`"
                lines.append(f"| `hydra.launcher.{key}` | {shown} | {_cell(written[key])} |")
    return lines


def _rows(
    section: str, keys: Mapping[str, Any], path: Path, below: str = "", source: type | None = None
) -> list[str]:
    """Return a table of keys.

    Args:
        section: of the config; empty for top-level keys.
        keys: with their annotations.
        path: of the file with their values and comments.
        below: section of the keys in that file.
        source: dataclass whose comments come first; None: its comments are used only if the file has none.
    """
    prefix = f"{below}." if below else ""
    values, written = dict(dotted_items(read_yaml(path))), key_comments(path)
    read = field_comments(source or FIXED_SECTIONS.get(section) or TopLevelConfig)
    lines = list(TABLE)
    for key, annotation in keys.items():
        in_file, in_class = written.get(prefix + key, ""), read.get(key, "")
        meaning = (
            "; ".join(dict.fromkeys(filter(None, [in_class, in_file]))) if source else in_file or in_class
        )
        if not meaning:
            raise ValueError(
                f"{path}: {prefix + key}: has no comment; add its meaning there or after its type"
            )
        name = f"{section}.{key}" if section else key
        value = _text(values[prefix + key])
        lines.append(f"| `{name}` | {_cell(describe_type(annotation))} | `{value}` | {_cell(meaning)} |")
    return lines


def _sets(path: Path, but: str = "") -> str:
    """Return the overrides that a file amounts to, in its own and in other groups."""
    values = read_yaml(path)
    chosen = []
    for entry in values.pop("defaults", []):
        if isinstance(entry, dict):
            ((group, choice),) = entry.items()
            chosen.append(f"{str(group).removeprefix('override ').lstrip('/')}={choice}")
        elif entry not in ("_self_", "default"):
            chosen.append(f"the values of {entry}")
    values.pop(but, None)
    own = [
        f"`{key}={_text(value)}`"
        for key, value in dotted_items(values)
        if not isinstance(value, dict) and key != "id"
    ]
    return ", ".join([*(text if " " in text else f"`{text}`" for text in chosen), *own]) or "nothing"


def _text(value: Any) -> str:
    """Return a value in the syntax of the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, str):
        return value
    return f"{{{', '.join(f'{key}: {_text(inner)}' for key, inner in value.items())}}}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(page())
