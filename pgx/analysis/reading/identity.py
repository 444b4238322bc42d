"""Which environment, algorithm and seed a run of another library is of, from the names of folders."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = "unknown"
KEYS = ("env", "algo", "seed")

_ENV = re.compile(r"[A-Za-z][\w.-]*-v\d+")
_SEED = re.compile(r"(?:seed|s)[_=-]?(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,5}")  # longer ones are dates
_NUMBERED = re.compile(r"([A-Za-z].*)_(\d{1,5})")


@dataclass(frozen=True)
class Identity:
    """What runs are grouped by."""

    env: str
    algo: str
    seed: str | None


def identify(folder: Path, short: str, said: Mapping[str, str], told: Mapping[str, str]) -> Identity:
    """A foreign run's identity.

    What the user said comes first, then what the run wrote of itself, then its folder's name by the first rule that
    fits: `<env>__<algo>__<seed>__<time>` (CleanRL), `<env>/.../<algo>_<n>` (Stable-Baselines3, whose n numbers the
    runs), and `<env>/<algo>/<seed>/...` (Tianshou; seed3, s3 or 3). An environment is what looks like an id: letters,
    then -v and a number. Algorithms bear the library's name before their own, so that none is taken for pgx's.

    Args:
        folder: the run's.
        short: the library's name.
        said: by the user, of KEYS.
        told: by the run, of KEYS.
    """
    named = _from_names(folder.resolve().parts)
    env = said.get("env") or told.get("env") or named.get("env") or UNKNOWN
    algo = said.get("algo") or f"{short}:{told.get('algo') or named.get('algo') or UNKNOWN}"
    seed = said.get("seed") or told.get("seed") or named.get("seed")
    return Identity(env, algo, seed)


def _from_names(parts: tuple[str, ...]) -> dict[str, str]:
    fields = parts[-1].split("__")
    if len(fields) >= 4:
        return {"env": fields[0], "algo": "__".join(fields[1:-2]), "seed": fields[-2]}
    found: dict[str, str] = {}
    where = max((i for i, part in enumerate(parts) if _ENV.fullmatch(part)), default=None)
    if where is not None:
        found["env"] = parts[where]
    if (numbered := _NUMBERED.fullmatch(parts[-1])) and not _SEED.fullmatch(parts[-1]):
        return found | {"algo": numbered[1], "seed": numbered[2]}
    below = parts[where + 1 :] if where is not None else parts[-2:]
    for part in below:
        if seed := _SEED.fullmatch(part) or _NUMBER.fullmatch(part):
            found.setdefault("seed", seed[1] if seed.re is _SEED else part)
        elif not part[0].isdigit():
            found.setdefault("algo", part)
    return found
