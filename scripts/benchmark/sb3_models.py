"""Models of Stable-Baselines3 and sb3-contrib with pgx's settings. It needs an environment with both."""

from typing import Any

import gymnasium
import numpy as np
import torch
from sb3_contrib import TRPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize


class EnvPoolVec(VecEnv):
    """EnvPool as an SB3 vector environment, which returns the first observation in the step that ends an episode.

    EnvPool resets in the next step, so this class resets at once. The last observation is in `info`, from which SB3
    bootstraps at a time limit.
    """

    def __init__(self, env_id: str, num_envs: int, threads: int, seed: int) -> None:
        import envpool

        self.pool = envpool.make(
            env_id,
            env_type="gymnasium",
            num_envs=num_envs,
            num_threads=min(threads, num_envs),
            seed=seed,
        )
        space = self.pool.observation_space
        super().__init__(
            num_envs,
            gymnasium.spaces.Box(space.low, space.high, space.shape, np.float64),
            self.pool.action_space,
        )

    def reset(self) -> Any:
        return self.pool.reset()[0]

    def step_async(self, actions: Any) -> None:
        self.actions = actions.astype(np.float64)

    def step_wait(self) -> Any:
        obs, reward, terminated, truncated, _ = self.pool.step(self.actions)
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(done)
        if len(ended):
            for i in ended:
                infos[i]["terminal_observation"] = obs[i].copy()
                infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
            obs = obs.copy()
            obs[ended] = self.pool.reset(ended.astype(np.int32))[0]
        return obs, reward, done, infos

    def close(self) -> None:
        self.pool.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def environments(env_id: str, vec: str, num_envs: int, threads: int, seed: int) -> VecNormalize:
    """Return environments with normalized observations and rewards: DummyVecEnv ("dummy") or EnvPool ("envpool")."""
    inner: VecEnv = (
        VecMonitor(EnvPoolVec(env_id, num_envs, threads, seed))
        if vec == "envpool"
        else make_vec_env(env_id, num_envs, seed=seed, vec_env_cls=DummyVecEnv)
    )
    return VecNormalize(inner, gamma=0.99)


def model(algo: str, envs: VecEnv, batch: int, minibatch: int, seed: int, **losses: Any) -> Any:
    """Return a model with separate 64 x 64 tanh networks and the hyperparameters of pgx, as far as they match.

    Args:
        algo: ppo, trpo or a2c.
        envs: N environments.
        batch: rows of an update.
        minibatch: rows of a gradient step, of PPO and of TRPO's critic.
        seed: of weights, actions and shuffles.
        losses: other keyword arguments of the model.
    """
    torch.set_num_threads(1)  # as fast as any number for networks of this size
    common: dict[str, Any] = {
        "env": envs,
        "n_steps": batch // envs.num_envs,
        "gamma": 0.99,
        "policy_kwargs": {"activation_fn": torch.nn.Tanh, "net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        "seed": seed,
        "device": "cpu",
        **losses,
    }
    if algo == "ppo":
        return PPO(
            "MlpPolicy", batch_size=minibatch, n_epochs=10, learning_rate=3e-4, gae_lambda=0.95, **common
        )
    if algo == "trpo":
        # cg_max_steps 15 and n_critic_updates 10 are its defaults and pgx's. Its line_search_max_iter 10 counts
        # fractions, algo.line_search_steps 10 counts backtracks: 11 fractions.
        return TRPO("MlpPolicy", batch_size=minibatch, learning_rate=1e-3, gae_lambda=0.97, **common)
    return A2C("MlpPolicy", learning_rate=7e-4, gae_lambda=1.0, ent_coef=0.01, **common)
