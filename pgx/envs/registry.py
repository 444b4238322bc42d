"""Environment ids of Gymnasium's registry: similar ids, missing packages, and registration in worker processes."""

import importlib
import pickle
import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import cloudpickle
import gymnasium
from gymnasium.envs.registration import load_env_creator

from pgx.core.errors import UserError
from pgx.core.imports import hidden_file
from pgx.core.schema import most_similar
from pgx.envs.callables import NAMESPACE

_DICT_NOTE = (
    "; its observations are a Dict: register it wrapped, e.g. in gymnasium.wrappers.FlattenObservation"
)


@dataclass(frozen=True)
class EnvPackage:
    """Package whose environments have ids of a known form.

    Args:
        pip: argument of `pip install`.
        module: module that registers the environments when it is imported.
        ids: regular expression that matches a whole id.
        note: further text of the hint: another override, or "; " and an instruction; empty: none.
    """

    pip: str
    module: str
    ids: str
    note: str = ""


KNOWN_PACKAGES = (
    EnvPackage("ale-py", "ale_py", r"ALE/.+"),
    EnvPackage("minigrid", "minigrid", r"(MiniGrid|BabyAI)-.+", _DICT_NOTE),
    EnvPackage("miniworld", "miniworld", r"MiniWorld-.+"),
    EnvPackage(
        "gymnasium-robotics",
        "gymnasium_robotics",
        r"(Fetch|HandReach|HandManipulate|PointMaze|AntMaze|FrankaKitchen).*-v\d+",
        _DICT_NOTE,
    ),
    EnvPackage("gymnasium-robotics", "gymnasium_robotics", r"AdroitHand.*-v\d+"),
    EnvPackage(
        "highway-env",
        "highway_env",
        r"(highway|merge|roundabout|parking|intersection|racetrack|exit|lane-keeping|two-way|u-turn)(-.+)?-v\d+",
    ),
    EnvPackage("metaworld", "metaworld", r"Meta-World/.+", " env.kwargs.env_name=reach-v3"),
    EnvPackage("shimmy[dm-control]", "shimmy", r"dm_control/.+", _DICT_NOTE),
    EnvPackage("panda-gym", "panda_gym", r"Panda.*-v\d+", _DICT_NOTE),
    EnvPackage("vizdoom", "vizdoom.gymnasium_wrapper", r"Vizdoom.*-v\d+", _DICT_NOTE),
    EnvPackage("pybullet-envs-gymnasium", "pybullet_envs_gymnasium", r".*Bullet.*-v\d+"),
    EnvPackage("flappy-bird-gymnasium", "flappy_bird_gymnasium", r"FlappyBird.*-v\d+"),
    EnvPackage("gym-pusht", "gym_pusht", r"gym_pusht/.+"),
    EnvPackage("gym-aloha", "gym_aloha", r"gym_aloha/.+"),
    EnvPackage("gym-xarm", "gym_xarm", r"gym_xarm/.+"),
)

_GAMES = """
Adventure AirRaid Alien Amidar Assault Asterix Asteroids Atlantis BankHeist BattleZone BeamRider Berzerk Bowling Boxing
Breakout Carnival Centipede ChopperCommand CrazyClimber Defender DemonAttack DoubleDunk ElevatorAction Enduro
FishingDerby Freeway Frostbite Gopher Gravitar Hero IceHockey Jamesbond JourneyEscape Kangaroo Krull KungFuMaster
MontezumaRevenge MsPacman NameThisGame Phoenix Pitfall Pong Pooyan PrivateEye Qbert Riverraid RoadRunner Robotank
Seaquest Skiing Solaris SpaceInvaders StarGunner Tennis TimePilot Tutankham UpNDown Venture VideoPinball WizardOfWor
YarsRevenge Zaxxon
"""
_ATARI_GAMES = {game.lower(): game for game in _GAMES.split()}


def id_problem(env_id: str) -> str | None:
    """Return why an environment's id cannot be used, with a similar registered one; None: it is registered.

    For `module:Id-v0`, the module is imported first, as Gymnasium does.
    """
    module, colon, name = env_id.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # a user's module may raise anything
            missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
            hint = _install_hint(module) if missing else hidden_file(module)
            return f"env.id={env_id}: module '{module}' cannot be imported: {type(error).__name__}: {error}{hint}"
    if name in gymnasium.registry:
        return None
    if colon:
        hint = hidden_file(module) or nearest_id(name)
        return f"env.id={env_id}: module '{module}' was imported and registers no environment '{name}'{hint}"
    if name.startswith(f"{NAMESPACE}/"):
        return (
            f"env.id={env_id}: a function of a Python program made this environment; pass it again there: "
            "pgx.load(RUN, env=...)"
        )
    if (package := package_hint(name)) is not None:
        return f"env.id={env_id}: not registered with Gymnasium; {package}"
    return (
        f"env.id={env_id}: no environment of that id is registered with Gymnasium{nearest_id(name)} "
        "(`pgx envs` lists them)"
    )


def nearest_id(env_id: str) -> str:
    """Return "; did you mean 'x'?" for the most similar registered id, of the same version or the newest."""
    name, dash, version = env_id.rpartition("-v")
    versions: dict[str, list[str]] = {}
    for known in gymnasium.registry:
        versions.setdefault(known.rpartition("-v")[0], []).append(known)
    similar = most_similar(name if dash else env_id, versions)
    if similar is None:
        return ""
    same = f"{similar}-v{version}"
    newest = max(versions[similar], key=lambda known: (len(known), known))
    return f"; did you mean '{same if same in versions[similar] else newest}'?"


def later_version(env_id: str) -> str | None:
    """Return the id of an environment's newest registered version; None if the id has it or is not registered."""
    own = gymnasium.registry.get(env_id.rpartition(":")[2])
    if own is None:
        return None
    newest = max(
        spec.version or 0
        for spec in gymnasium.registry.values()
        if (spec.namespace, spec.name) == (own.namespace, own.name)
    )
    name = f"{own.namespace}/{own.name}" if own.namespace else own.name
    return f"{name}-v{newest}" if newest > (own.version or 0) else None


def package_hint(env_id: str) -> str | None:
    """Return the package that registers an id and the override that selects it; None: the id has no known form.

    Args:
        env_id: an id without a module, e.g. "ALE/Pong-v5"; for an Atari game also its name alone or an older id, e.g.
            "Pong-v5" or "PongNoFrameskip-v4".
    """
    game = re.fullmatch(r"(\w+?)(-ram)?(NoFrameskip|Deterministic)?(-v\d+)?", env_id)
    if game and (name := _ATARI_GAMES.get(game[1].lower())):
        env_id = f"ALE/{name}-v5"
    for package in KNOWN_PACKAGES:
        if re.fullmatch(package.ids, env_id):
            override = f"env={package.module}:{env_id}{package.note}"
            return f"{env_id} comes from {package.pip.partition('[')[0]}{_install_state(package)}; {override}"
    namespace, slash, _ = env_id.partition("/")
    if slash and namespace.isidentifier():
        return f"name the module that registers the namespace '{namespace}': env=MODULE:{env_id}"
    return None


def _install_hint(module: str) -> str:
    """Return "; pip install ..." for a module of a known package; empty for others."""
    return next(
        (
            f"; pip install {_quoted(p.pip)}"
            for p in KNOWN_PACKAGES
            if p.module.partition(".")[0] == module.partition(".")[0]
        ),
        "",
    )


def _install_state(package: EnvPackage) -> str:
    installed = find_spec(package.module.partition(".")[0]) is not None
    return ", which is installed" if installed else f": pip install {_quoted(package.pip)}"


def _quoted(pip: str) -> str:
    return f"'{pip}'" if "[" in pip else pip


def pickle_env(env_id: str, kwargs: dict[str, Any]) -> bytes:
    """Pickle an environment's registration and its keywords, for `unpickle_env` in a worker process.

    Functions and classes of the script or notebook that is run are sent themselves; those of modules by name.

    Raises:
        ValueError: they cannot be pickled.
    """
    # None for `module:Id`: the worker imports the module, which may register something that cannot be pickled.
    spec = gymnasium.registry.get(env_id)
    if spec is not None and isinstance(spec.entry_point, str) and spec.entry_point.startswith("__main__:"):
        creator: Any = load_env_creator(spec.entry_point)
        spec = replace(spec, entry_point=creator)
    try:
        pickled: bytes = cloudpickle.dumps((spec, kwargs))
    except Exception as error:
        fix = f"register it in a module and use env.id=module:{env_id}"
        raise ValueError(f"{env_id} cannot be sent to worker processes ({error}); {fix}") from error
    return pickled


def unpickle_env(env_id: str, pickled: bytes) -> dict[str, Any]:
    """Register in this process the environment of `pickle_env`; return its keywords.

    Raises:
        UserError: a module of the registration cannot be imported here.
    """
    try:
        spec, kwargs = pickle.loads(pickled)
    except Exception as error:
        raise UserError(
            f"env.id={env_id}: a worker process cannot import what it was registered with "
            f"({type(error).__name__}: {error}); register it in a module and use env.id=module:{env_id}"
        ) from error
    if spec is not None:
        gymnasium.registry[spec.id] = spec
    return dict(kwargs)
