"""Measure Tianshou on the same work as pgx; print a JSON line with its environment steps per second.

It needs a separate environment:

    pip install 'tianshou==2.0.1' 'gymnasium[mujoco]' 'envpool==1.2.5'
    python scripts/bench_tianshou.py --algo ppo --vec envpool --num-envs 8 --steps 40960 --seed 0
"""

import argparse
import json
import os
import time
from typing import Any

import gymnasium
import numpy as np
import torch
from benchmark.clock import Stamp, steps_per_second
from benchmark.machine import cores
from tianshou.algorithm import A2C, PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory, RMSpropOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, VectorEnvNormObs
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import ActorCritic, Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from torch import nn
from torch.distributions import Distribution, Independent, Normal


def environments(env_id: str, vec: str, num_envs: int, threads: int, seed: int) -> Any:
    """Return environments with normalized observations."""
    if vec == "envpool":
        import envpool

        pool = envpool.make(
            env_id, env_type="gymnasium", num_envs=num_envs, num_threads=min(threads, num_envs), seed=seed
        )
        return VectorEnvNormObs(pool)
    envs = DummyVectorEnv([lambda: gymnasium.make(env_id) for _ in range(num_envs)])
    envs.seed(seed)
    return VectorEnvNormObs(envs)


def network(shape: Any) -> Net:
    return Net(state_shape=shape, hidden_sizes=[64, 64], activation=nn.Tanh)


def gaussian(mean_and_std: tuple[torch.Tensor, torch.Tensor]) -> Distribution:
    return Independent(Normal(*mean_and_std), 1)


def learner(algo: str, space: gymnasium.Space[Any], actions: gymnasium.Space[Any]) -> Any:
    """Return a learner with separate 64 x 64 tanh networks and the hyperparameters of pgx, as far as they match."""
    actor = ContinuousActorProbabilistic(
        preprocess_net=network(space.shape), action_shape=actions.shape, unbounded=True
    )
    critic = ContinuousCritic(preprocess_net=network(space.shape))
    for module in ActorCritic(actor, critic).modules():
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight, gain=2**0.5)
            nn.init.zeros_(module.bias)
    nn.init.zeros_(actor.sigma_param)
    for module in actor.mu.modules():
        if isinstance(module, nn.Linear):
            module.weight.data.mul_(0.01)
    common: dict[str, Any] = {
        "policy": ProbabilisticActorPolicy(
            actor=actor,
            dist_fn=gaussian,
            action_scaling=True,
            action_bound_method="clip",
            action_space=actions,
        ),
        "critic": critic,
        "gamma": 0.99,
        "return_scaling": True,
        "max_grad_norm": 0.5,
        "vf_coef": 0.5,
    }
    if algo == "ppo":
        optimizer = AdamOptimizerFactory(lr=3e-4, eps=1e-5)
        return PPO(
            optim=optimizer,
            gae_lambda=0.95,
            eps_clip=0.2,
            ent_coef=0.0,
            advantage_normalization=True,
            **common,
        )
    optimizer = RMSpropOptimizerFactory(lr=7e-4, eps=1e-5, alpha=0.99)
    return A2C(optim=optimizer, gae_lambda=1.0, ent_coef=0.01, **common)


def run(options: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)
    batch, repeats, minibatch = (2048, 10, 64) if options.algo == "ppo" else (80, 1, None)
    envs = environments(options.env, options.vec, options.num_envs, options.threads, options.seed)
    single = gymnasium.make(options.env)
    algorithm = learner(options.algo, single.observation_space, single.action_space)
    buffer = VectorReplayBuffer(max(4096, 2 * batch), options.num_envs)
    collector = Collector(algorithm, envs, buffer, exploration_noise=True)

    stamps: list[Stamp] = []
    collect, done = collector.collect, [0]

    def watched(*arguments: Any, **keywords: Any) -> Any:
        stamps.append((done[0], time.monotonic()))  # the iteration before, update included, has ended
        result = collect(*arguments, **keywords)
        done[0] += result.n_collected_steps
        return result

    collector.collect = watched
    algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            test_collector=None,
            max_epochs=1,
            epoch_num_steps=options.steps,
            update_step_num_repetitions=repeats,
            batch_size=minibatch,
            collection_step_num_env_steps=batch,
            test_in_training=False,
            show_progress=False,
            verbose=False,
        )
    )
    stamps.append((done[0], time.monotonic()))
    return {"steps_per_second": steps_per_second(stamps, options.warm_up)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algo", choices=["ppo", "a2c"], default="ppo")
    parser.add_argument("--env", default="Walker2d-v4")
    parser.add_argument("--vec", choices=["dummy", "envpool"], default="envpool")
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=cores(), help="of EnvPool")
    parser.add_argument("--steps", type=int, default=40_960, help="environment steps")
    parser.add_argument("--warm-up", type=int, default=4096, help="environment steps before the clock")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(run(options)), flush=True)
    os._exit(0)  # EnvPool's threads may outlive an orderly end


if __name__ == "__main__":
    main()
