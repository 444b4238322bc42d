"""What metrics look like in a sound run: rules of thumb, shown on docs/metrics.md."""

# By key, what a sound run shows: rules of thumb. Bounds beyond which something is wrong are the doctor's.
HEALTHY = {
    "episode_return_recent": "rises, with dips; what it may reach is the task's",
    "clipped_reward_fraction": "below 0.01; more of it, and rewards differ less than the environment pays",
    "clipped_action_fraction": "below 0.3, or falling; rising with the entropy, the policy spreads beyond the bounds",
    "policy_lag": "2 at most where nothing weighs the actions of older policies",
    "kl": "below its bound where the rule has one (TRPO with its damping: about half of `algo.max_kl`); "
    "0.005 to 0.05 with PPO and its kin; less with rules of one gradient step",
    "normalizer_kl": "below a fifth of `health/kl`; above it at the first updates, raise `env.normalizer_warmup_steps`",
    "kl_max": "some ten times `health/kl`; orders of magnitude above it, a few observations are changed completely",
    "entropy": "falls while the return rises; early and without it, exploration is lost",
    "ess": "about 1 - 2 x `health/kl`; below 0.5 no estimate of the update is to be trusted",
    "clip_fraction": "0.1 to 0.3 with PPO; more where the rule bounds something else",
    "surrogate_gain": "above 0, somewhat below `health/predicted_gain`; at less than a quarter the step is too long",
    "explained_variance": "above 0 after the first tenth of the run, and rising; 1 is all",
    "explained_variance_after": "above `health/explained_variance`; far above it, the critic fits the batch alone",
    "gradient_norm": "of the size of `optimizer.max_grad_norm`, or less",
    "line_search_steps": "1 to 3",
    "line_search_fraction": "above 0 in nearly all updates",
    "zero_gradient": "0; 1 until the first reward where all advantages are equal",
    "no_curvature": "0",
    "cg_residual": "below 0.5",
    "updates_skipped": "0",
}
