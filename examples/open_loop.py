"""The training loop in the open: PPO on CartPole without a trainer or a run folder.

    python open_loop.py

The collector updates the observation normalizer. The loop ends with the parameters of `pgx.train` with the same values.
"""

import pgx

STEPS, SEED = 40_000, 1

envs = pgx.create_envs("CartPole-v1", num_envs=8)
agent = pgx.create_agent(envs, policy=pgx.MLPPolicy(hidden=[64, 64]), critic=pgx.MLPCritic(), seed=SEED)
rule = pgx.PPO(clip_range=0.2, epochs=10)
learner = pgx.create_learner(agent, optimizer=pgx.Adam(), critic_optimizer=pgx.Adam(), seed=SEED)

with pgx.step_collector(envs, agent, rollout_steps=128, total_steps=STEPS, seed=SEED) as collector:
    for rollout in collector:
        metrics = rule.update(agent, learner, rollout, collector.progress)
        print(
            f"{collector.steps:>6,} steps  return {collector.recent_return:6.1f}  "
            f"critic loss {metrics['critic_loss']:.3g}"
        )
