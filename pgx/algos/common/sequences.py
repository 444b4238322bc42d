"""Sequences of a rollout for training recurrent policies."""

import torch
from torch import Tensor

from pgx.core.agent import Agent
from pgx.core.data import History, Rollout

_MAX_SUGGESTED_LENGTH = 10_000  # bound on the search for a length to suggest in an error


def cut_sequences(agent: Agent, rollout: Rollout) -> History:
    """Cut a rollout into sequences of `sequence_length` steps, each with up to `burn_in` steps before it.

    A sequence starts from the stored recurrent state of the acting policy. The burn-in steps recompute the state with
    the current parameters; the other steps are trained on. The first sequence of a rollout has no burn-in. The state
    is reset where an episode begins. Rows are numbered as `rollout.obs[rollout.valid]` has them, time-major.

    Source: Kapturowski et al., "Recurrent experience replay in distributed reinforcement learning", 2019, section 3
    (stored state with burn-in).

    Args:
        agent: with a recurrent policy.
        rollout: T steps of N environments.

    Returns:
        Sequence p N + n is piece p of environment n.
    """
    recurrent_state = agent.policy.recurrent_state
    assert recurrent_state is not None and rollout.recurrent_state is not None
    (steps, envs), device = rollout.valid.shape, rollout.valid.device
    # For each piece of time: its first step after the burn-in, and the first step of its burn-in.
    first = torch.arange(0, steps, recurrent_state.sequence_length, device=device)
    start = (first - recurrent_state.burn_in).clamp(min=0)
    length = int(((first + recurrent_state.sequence_length).clamp(max=steps) - start).max())
    within = torch.arange(length, device=device).unsqueeze(1)
    at = (start + within).clamp(max=steps - 1)  # [L, pieces]
    step_of = torch.arange(steps, device=device).unsqueeze(1).expand(steps, envs)
    piece_of = step_of // recurrent_state.sequence_length
    env_of = torch.arange(envs, device=device).expand(steps, envs)

    def cut(x: Tensor) -> Tensor:
        return x[at].flatten(1, 2)

    return History(
        features=agent.normalizer(cut(rollout.obs)),
        begins=cut(rollout.time == 0),
        recurrent_state=rollout.recurrent_state[start].flatten(0, 1),
        burn_in=(start + within < first).unsqueeze(2).expand(length, len(first), envs).flatten(1, 2),
        step=(step_of - start[piece_of])[rollout.valid],
        sequence=(piece_of * envs + env_of)[rollout.valid],
    )


def sequence_conflicts(rollout_steps: int | None, sequence_length: int, burn_in: int) -> list[str]:
    """Return a message with the arithmetic for each reason why rollouts do not divide into sequences.

    Args:
        rollout_steps: T; None for whole episodes, whose last sequence may be shorter.
        sequence_length: steps of a sequence.
        burn_in: steps before it.
    """
    if rollout_steps is None:
        return []
    found = []
    if rollout_steps % sequence_length:
        tried = range(1, min(sequence_length, _MAX_SUGGESTED_LENGTH) + 1)
        shorter = max(n for n in tried if rollout_steps % n == 0)
        found.append(
            f"policy.sequence_length: a rollout, runner.rollout_steps {rollout_steps} steps, does not divide into "
            f"sequences of {sequence_length} ({rollout_steps} / {sequence_length} = "
            f"{rollout_steps / sequence_length:.4g}); the longest shorter sequences have {shorter} steps"
        )
    before = max(0, rollout_steps - sequence_length)
    if burn_in > before:
        found.append(
            f"policy.burn_in: a sequence has at most runner.rollout_steps {rollout_steps} - policy.sequence_length "
            f"{sequence_length} = {before} steps before it in a rollout; expected at most that, got {burn_in}"
        )
    return found
