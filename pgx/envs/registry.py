"""Environment ids of Gymnasium's registry: missing packages, similar ids, and registration in worker processes."""

import importlib
import pickle
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import gymnasium

from pgx.core.errors import UserError
from pgx.core.imports import hidden_file
from pgx.core.schema import most_similar

_DICT = "; its observations are a Dict: register it wrapped, e.g. in gymnasium.wrappers.FlattenObservation"


@dataclass(frozen=True)
class Package:
    """A package whose environments have ids of a known form.

    Args:
        pip: what `pip install` takes.
        module: what registers the environments when it is imported.
        ids: a regular expression that matches a whole id.
        note: what else the user has to do, from "; " on; empty: nothing.
    """

    pip: str
    module: str
    ids: str
    note: str = ""


PACKAGES = (
    Package("ale-py", "ale_py", r"ALE/.+"),
    Package("minigrid", "minigrid", r"(MiniGrid|BabyAI)-.+", _DICT),
    Package("miniworld", "miniworld", r"MiniWorld-.+"),
    Package(
        "gymnasium-robotics",
        "gymnasium_robotics",
        r"(Fetch|HandReach|HandManipulate|PointMaze|AntMaze|FrankaKitchen).*-v\d+",
        _DICT,
    ),
    Package("gymnasium-robotics", "gymnasium_robotics", r"AdroitHand.*-v\d+"),
    Package(
        "highway-env",
        "highway_env",
        r"(highway|merge|roundabout|parking|intersection|racetrack|exit|lane-keeping|two-way|u-turn)(-.+)?-v\d+",
    ),
    Package("metaworld", "metaworld", r"Meta-World/.+", " env.kwargs.env_name=reach-v3"),
    Package("shimmy[dm-control]", "shimmy", r"dm_control/.+", _DICT),
    Package("panda-gym", "panda_gym", r"Panda.*-v\d+", _DICT),
    Package("vizdoom", "vizdoom.gymnasium_wrapper", r"Vizdoom.*-v\d+", _DICT),
    Package("pybullet-envs-gymnasium", "pybullet_envs_gymnasium", r".*Bullet.*-v\d+"),
    Package("flappy-bird-gymnasium", "flappy_bird_gymnasium", r"FlappyBird.*-v\d+"),
    Package("gym-pusht", "gym_pusht", r"gym_pusht/.+"),
    Package("gym-aloha", "gym_aloha", r"gym_aloha/.+"),
    Package("gym-xarm", "gym_xarm", r"gym_xarm/.+"),
)

_GAMES = """
Adventure AirRaid Alien Amidar Assault Asterix Asteroids Atlantis BankHeist BattleZone BeamRider Berzerk Bowling Boxing
Breakout Carnival Centipede ChopperCommand CrazyClimber Defender DemonAttack DoubleDunk ElevatorAction Enduro
FishingDerby Freeway Frostbite Gopher Gravitar Hero IceHockey Jamesbond JourneyEscape Kangaroo Krull KungFuMaster
MontezumaRevenge MsPacman NameThisGame Phoenix Pitfall Pong Pooyan PrivateEye Qbert Riverraid RoadRunner Robotank
Seaquest Skiing Solaris SpaceInvaders StarGunner Tennis TimePilot Tutankham UpNDown Venture VideoPinball WizardOfWor
YarsRevenge Zaxxon
"""
ATARI = {game.lower(): game for game in _GAMES.split()}


def package_hint(env_id: str) -> str | None:
    """Return the package that registers an id, with the exact line to type; None: the id has no known form.

    Args:
        env_id: an id without a module, e.g. "ALE/Pong-v5"; of an Atari game also a bare or an older id, e.g.
            "Pong-v5" or "PongNoFrameskip-v4".
    """
    game = re.fullmatch(r"(\w+?)(-ram)?(NoFrameskip|Deterministic)?(-v\d+)?", env_id)
    if game and (name := ATARI.get(game[1].lower())):
        env_id = f"ALE/{name}-v5"
    for package in PACKAGES:
        if re.fullmatch(package.ids, env_id):
            line = f"env={package.module}:{env_id}{package.note}"
            return f"{env_id} comes from {package.pip.partition('[')[0]}{_install(package)}; {line}"
    namespace, slash, _ = env_id.partition("/")
    if slash and namespace.isidentifier():
        return f"name the module that registers the namespace '{namespace}': env=MODULE:{env_id}"
    return None


def install_hint(module: str) -> str:
    """Return "; pip install ..." for a module of a known package, else an empty text."""
    return next(
        (
            f"; pip install {_quoted(p.pip)}"
            for p in PACKAGES
            if p.module.partition(".")[0] == module.partition(".")[0]
        ),
        "",
    )


def _install(package: Package) -> str:
    there = find_spec(package.module.partition(".")[0]) is not None
    return ", which is installed" if there else f": pip install {_quoted(package.pip)}"


def _quoted(pip: str) -> str:
    return f"'{pip}'" if "[" in pip else pip


def pickle_env(env_id: str, kwargs: dict[str, Any]) -> bytes:
    """What a worker needs to make an environment: how it was registered here, and its keywords.

    Raises:
        ValueError: it cannot be brought there.
    """
    # None for `module:Id`, which its module registers there too, perhaps with what cannot be sent.
    spec = gymnasium.registry.get(env_id)
    instead = f"register it in a module and use env.id=module:{env_id}"
    try:
        packed = pickle.dumps((spec, kwargs))
    except Exception as error:
        raise ValueError(f"{env_id} cannot be sent to worker processes ({error}); {instead}") from error
    if b"__main__" in packed:  # pickle sends functions and classes by the name of their module
        raise ValueError(
            f"{env_id} is made by code of the script itself, which workers do not run; {instead}"
        )
    return packed


def unpickle_env(env_id: str, packed: bytes) -> dict[str, Any]:
    """Register the environment in this process as it was registered where it was packed; returns its keywords.

    Raises:
        UserError: what it was registered with cannot be imported here.
    """
    try:
        spec, kwargs = pickle.loads(packed)
    except Exception as error:
        raise UserError(
            f"env.id={env_id}: a worker process cannot import what it was registered with "
            f"({type(error).__name__}: {error}); register it in a module and use env.id=module:{env_id}"
        ) from error
    if spec is not None:
        gymnasium.registry[spec.id] = spec
    return dict(kwargs)


def id_problem(env_id: str) -> str | None:
    """What is wrong with an environment's id, with the nearest registered one; None when it is registered.

    `module:Id-v0` imports the module first, which is how Gymnasium finds environments of your own.
    """
    module, colon, name = env_id.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # whatever a module of the user's raises
            missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
            hint = install_hint(module) if missing else hidden_file(module)
            return f"env.id={env_id}: module '{module}' cannot be imported: {type(error).__name__}: {error}{hint}"
    if name in gymnasium.registry:
        return None
    if colon:
        hint = hidden_file(module) or nearest_id(name)
        return f"env.id={env_id}: module '{module}' was imported and registers no environment '{name}'{hint}"
    if (package := package_hint(name)) is not None:
        return f"env.id={env_id}: not registered with Gymnasium; {package}"
    return (
        f"env.id={env_id}: no environment of that id is registered with Gymnasium{nearest_id(name)} "
        "(`pgx envs` lists them)"
    )


def nearest_id(env_id: str) -> str:
    """`; did you mean 'x'?` for the registered id whose name is most similar, of the same version or the newest."""
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
    """Return the id of the newest registered version of an environment; None if the id is that, or is unknown."""
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
