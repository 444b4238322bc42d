"""Every key of a config as a page: `python -m scripts.config_reference > docs/config.md`.

Type and range stand where a value is read, the value and most meanings in configs/, a rule's meanings in its dataclass:
the page is put together from these, and says nothing of its own but how they are used.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgx.algos import rule, rules
from pgx.config.compose import comments, field_comments, head, leaves, values_of
from pgx.config.run_config import FIXED, NAMED, SearchConfig, Top, keys_of
from pgx.core.paths import choices, config_dir
from pgx.core.schema import describe, signature

CONFIGS = config_dir()
HEADING = """\
# Config

Made by `python -m scripts.config_reference > docs/config.md` from configs/ and from the types of what reads the values.

A run's config is composed of one file of each group, and any value of it can be changed on the command line:

    pgx train algo=ppo policy.hidden=[32,32] algo.clip_range=0.1 env=Hopper-v5 env.num_envs=32

`group=choice` takes another file, `group.key=value` another value. The command line beats `experiment=NAME`,
which beats what the algo's file prefers elsewhere (rollout length, optimizer, ...), which beats the rest. Values
stand in these files and nowhere else. `pgx train --cfg job ...` prints what a command line comes to,
`pgx train --help ...` every key of it with its value and its meaning.
An unknown key, a value out of its range, a key that nothing would read
beside the others, and values that contradict each other are refused, all at once, before anything starts.

`???`: has to be given. `${env.discount}`: whatever that key is, unless this one is set. `null`: as the meaning says.
"""
TABLE = ["| key | takes | value | meaning |", "|---|---|---|---|"]


def page() -> str:
    """docs/config.md."""
    train = CONFIGS / "train.yaml"
    lines = [HEADING, "## Of the run", ""]
    lines += _rows("", signature(Top), train)
    for section in ("trainer", "health"):
        lines += ["", f"## {section}", "", *_rows(section, signature(FIXED[section]), train, below=section)]
    logger = CONFIGS / "logger" / "default.yaml"
    lines += ["", "## logger", "", *_rows("logger", signature(FIXED["logger"]), logger)]
    lines += ["", *_environments(), "", *_rewards(), "", *_rules()]
    for section in NAMED:
        lines += ["", *_named(section)]
    lines += ["", *_experiments(), "", *_searches(), "", *_launchers()]
    return "\n".join(lines) + "\n"


def _environments() -> list[str]:
    default = CONFIGS / "env" / "default.yaml"
    return [
        "## env",
        "",
        "`env=ID` takes any id registered with Gymnasium, `env=module:ID` one that a module of yours registers. These",
        "have a file of their own, and others the values below.",
        "",
        "| file | sets | why |",
        "|---|---|---|",
        *(
            f"| `env={path.stem}` | {_sets(path)} | {_cell(head(path))} |"
            for path in sorted(default.parent.glob("*.yaml"))
            if path != default
        ),
        "",
        *_rows("env", signature(FIXED["env"]), default),
    ]


def _rewards() -> list[str]:
    own = CONFIGS / "reward" / "none.yaml"
    return [
        "## reward",
        "",
        "`reward=NAME` says [what is paid for a step](rewards.md). The values below are those of `reward=none`.",
        "",
        "| file | what it is |",
        "|---|---|",
        *(f"| `reward={name}` | {_cell(head(own.with_stem(name)))} |" for name in choices("reward")),
        "",
        *_rows("reward", signature(FIXED["reward"]), own),
    ]


def _rules() -> list[str]:
    lines = [
        "## algo",
        "",
        "`algo=NAME` takes a rule of these, `algo=module:Class` [one of your own](tutorials/own_rule.md).",
    ]
    for name in choices("algo"):
        path = CONFIGS / "algo" / f"{name}.yaml"
        lines += ["", f"### algo={name}", "", f"{head(path)} [Page](algorithms/{name}.md)."]
        lines += ["", f"Sets beside its own values: {_sets(path, but='algo')}."]
        if name in rules():
            lines += ["", *_rows("algo", signature(rule(name)), path, below="algo", source=rule(name))]
    return lines


def _named(section: str) -> list[str]:
    lines = [f"## {section}", "", f"`{section}=NAME`, NAME one of {', '.join(choices(section))}."]
    for name in choices(section):
        path = CONFIGS / section / f"{name}.yaml"
        keys = {key: hint for key, hint in keys_of(section, name).items() if key != "name"}
        about = head(path) or comments(path).get("name", "")
        lines += ["", f"### {section}={name}", "", *([about[0].upper() + about[1:], ""] if about else [])]
        lines += _rows(section, keys, path) if keys else ["No other keys."]
    return lines


def _experiments() -> list[str]:
    lines = [
        "## experiment",
        "",
        "`experiment=NAME` sets several things at once; the command line beats it.",
        "",
    ]
    lines += ["| file | what it is | sets |", "|---|---|---|"]
    for name in choices("experiment"):
        path = CONFIGS / "experiment" / f"{name}.yaml"
        lines.append(f"| `experiment={name}` | {_cell(head(path))} | {_sets(path)} |")
    return lines


def _searches() -> list[str]:
    lines = [
        "## sweep",
        "",
        "`pgx train -m sweep=NAME` [searches for hyperparameters](sweeps.md). There are:",
        "",
    ]
    for name in choices("sweep"):
        lines.append(f"- `sweep={name}`: {head(CONFIGS / 'sweep' / f'{name}.yaml')}")
    example = CONFIGS / "sweep" / "ppo_cartpole.yaml"
    lines += ["", "The values are those of `sweep=ppo_cartpole`.", ""]
    return [*lines, *_rows("sweep", signature(SearchConfig), example, source=SearchConfig)]


def _launchers() -> list[str]:
    lines = [
        "## hydra/launcher",
        "",
        "`hydra/launcher=NAME` says where [the runs of a sweep](sweeps.md) run.",
    ]
    for path in sorted((CONFIGS / "hydra" / "launcher").glob("*.yaml")):
        written = comments(path)
        lines += [
            "",
            f"### hydra/launcher={path.stem}",
            "",
            head(path),
            "",
            "| key | value | meaning |",
            "|---|---|---|",
        ]
        for key, value in leaves(values_of(path)):
            if key != "_target_":
                shown = "..." if isinstance(value, dict) else f"`{_text(value)}`"
                lines.append(f"| `hydra.launcher.{key}` | {shown} | {_cell(written[key])} |")
    return lines


def _rows(
    section: str, keys: Mapping[str, Any], path: Path, below: str = "", source: type | None = None
) -> list[str]:
    """A table of keys.

    Args:
        section: of the config; empty: the keys are not in one.
        keys: with their annotations.
        path: of the file with their values and comments.
        below: where they are in that file.
        source: the dataclass whose comments come first; None: only where the file has none.
    """
    prefix = f"{below}." if below else ""
    values, written = dict(leaves(values_of(path))), comments(path)
    read = field_comments(source or FIXED.get(section) or Top)
    lines = list(TABLE)
    for key, annotation in keys.items():
        here, there = written.get(prefix + key, ""), read.get(key, "")
        said = "; ".join(dict.fromkeys(filter(None, [there, here]))) if source else here or there
        if not said:
            raise ValueError(
                f"{path}: {prefix + key}: no comment there or beside its type says what it means"
            )
        name = f"{section}.{key}" if section else key
        value = _text(values[prefix + key])
        lines.append(f"| `{name}` | {_cell(describe(annotation))} | `{value}` | {_cell(said)} |")
    return lines


def _sets(path: Path, but: str = "") -> str:
    """What a file sets, of itself and of other groups, as on a command line."""
    values = values_of(path)
    chosen = []
    for entry in values.pop("defaults", []):
        if isinstance(entry, dict):
            ((group, choice),) = entry.items()
            chosen.append(f"{str(group).removeprefix('override ').lstrip('/')}={choice}")
        elif entry not in ("_self_", "default"):
            chosen.append(f"what {entry} sets")
    values.pop(but, None)
    own = [
        f"`{key}={_text(value)}`"
        for key, value in leaves(values)
        if not isinstance(value, dict) and key != "id"
    ]
    return ", ".join([*(text if " " in text else f"`{text}`" for text in chosen), *own]) or "nothing"


def _text(value: Any) -> str:
    """A value as one writes it on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, str):
        return value
    return f"{{{', '.join(f'{key}: {_text(inner)}' for key, inner in value.items())}}}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(page())
