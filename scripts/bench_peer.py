"""The same work in Stable-Baselines3 and sb3-contrib, for comparison: one JSON line.

Needs an environment of its own: pip install 'stable-baselines3==2.9.2' 'sb3-contrib==2.9.2' 'gymnasium[mujoco]'.

    python scripts/bench_peer.py --algo trpo --steps 200000 --seed 0
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import stable_baselines3
import torch
from sb3_contrib import TRPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize


class Returns(BaseCallback):
    """Raw returns of the training episodes, from SB3's own monitor."""

    def __init__(self) -> None:
        super().__init__()
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algo", choices=["ppo", "trpo"], required=True)
    parser.add_argument("--env", default="Walker2d-v4")
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-envs", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)

    envs = make_vec_env(options.env, options.num_envs, seed=options.seed, vec_env_cls=DummyVecEnv)
    common: dict[str, Any] = {
        "env": VecNormalize(envs, gamma=0.99),
        "n_steps": 2048 // options.num_envs,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "policy_kwargs": {"activation_fn": torch.nn.Tanh, "net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        "seed": options.seed,
        "device": "cpu",
    }
    if options.algo == "ppo":
        model = PPO("MlpPolicy", batch_size=64, n_epochs=10, learning_rate=3e-4, **common)
    else:
        model = TRPO(
            "MlpPolicy", batch_size=128, **common
        )  # its defaults: target_kl 0.01, cg 15, damping 0.1
    returns = Returns()
    started = time.perf_counter()
    model.learn(options.steps, callback=returns)
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "peer": f"stable-baselines3 {stable_baselines3.__version__}",
                "algo": options.algo,
                "env": options.env,
                "seed": options.seed,
                "steps": model.num_timesteps,
                "steps_per_second": round(model.num_timesteps / seconds, 1),
                "final_return": round(float(np.mean(returns.returns[-20:])), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
