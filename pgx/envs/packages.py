"""Packages that register environments with Gymnasium: what to install and type for an id that is unknown here."""

import re
from dataclasses import dataclass
from importlib.util import find_spec

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
