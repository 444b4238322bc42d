"""Convolutional networks: published arithmetic, both layouts of an image, pixels that stay bytes until a network."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from pgx.core.errors import UserError
from pgx.core.specs import ActionSpec, Continuous, Discrete, Image, ObsSpec
from pgx.envs.normalizers import Identity
from pgx.networks.cnn import CNNCritic, CNNPolicy, Layout, Stack
from pgx.networks.distributions import Categorical, DiagonalGaussian, SquashedGaussian
from pgx.ops.fisher import gauss_newton_product, kl_hessian_product, scores
from tests.conftest import Make, as_observations

LEFT_STAY_RIGHT = Discrete(3)
STACKS = ["nature", "impala"]
CATCH = [
    "env=tests.environments:Catch-v0",
    "policy=cnn",
    "critic=cnn",
    "policy.hidden=16",
    "critic.hidden=16",
]


def policy(
    obs: ObsSpec,
    stack: Stack = "nature",
    layout: Layout = "auto",
    action: ActionSpec = LEFT_STAY_RIGHT,
    hidden: int = 8,
    continuous: Literal["gaussian", "squashed_gaussian"] = "gaussian",
) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return CNNPolicy(stack, layout, hidden, 1.4, 0.5, -0.7, continuous).make(obs, action, generator)


def critic(obs: ObsSpec, stack: Stack = "nature", layout: Layout = "auto", hidden: int = 8) -> nn.Module:
    return CNNCritic(stack, layout, hidden, 1.4, 1.0).make(obs, Discrete(3), torch.Generator().manual_seed(0))


def images(*shape: int, rows: int = 5) -> Tensor:
    return torch.randint(256, (rows, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_nature_stack_on_atari_has_as_many_parameters_as_published() -> None:
    """84 -> 20 -> 9 -> 7 pixels: 8224 + 32832 + 36928 weights and biases, then 3136 x 512 and 512 x actions."""
    body = (4 * 64 * 32 + 32) + (32 * 16 * 64 + 64) + (64 * 9 * 64 + 64) + (7 * 7 * 64 * 512 + 512)
    assert body == 1_684_128
    assert size(policy(Image((4, 84, 84)), action=Discrete(6), hidden=512)) == body + 512 * 6 + 6
    assert size(critic(Image((84, 84, 4)), hidden=512)) == body + 512 + 1


def test_the_impala_stack_on_72_by_96_has_the_parameters_of_the_paper() -> None:
    """72 x 96 -> 36 x 48 -> 18 x 24 -> 9 x 12 pixels of 32 channels, then 256; fifteen convolutions."""

    def convolution(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + outputs

    body = sum(convolution(inputs, c) + 4 * convolution(c, c) for inputs, c in ((3, 16), (16, 32), (32, 32)))
    body += 9 * 12 * 32 * 256 + 256
    net = critic(Image((72, 96, 3)), "impala", hidden=256)
    assert size(net) == body + 257
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == 15
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == 15 + 2


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("shape", [(36, 40, 3), (84, 84, 1), (37, 51, 2)])
def test_channels_first_and_last_are_the_same_function_of_transposed_images(
    stack: Stack, shape: tuple[int, int, int]
) -> None:
    last = images(*shape)
    first = last.permute(0, 3, 1, 2).contiguous()
    for make in (policy, critic):
        told = make(Image(shape), stack, "last"), make(Image(tuple(first.shape[1:])), stack, "first")
        guessed = make(Image(shape), stack), make(Image(tuple(first.shape[1:])), stack)
        outputs = []
        for one, other in (told, guessed):
            a, b = one(as_observations(last)), other(as_observations(first))
            outputs += [a.logits, b.logits] if isinstance(a, Categorical) else [a, b]
        assert all(torch.allclose(outputs[0], other, rtol=1e-4, atol=1e-5) for other in outputs)
        assert not torch.allclose(outputs[0][0], outputs[0][1], rtol=1e-3)


@pytest.mark.parametrize("stack", STACKS)
def test_an_image_is_answered_to_by_itself_and_scaled_to_one(stack: Stack) -> None:
    """Row by row as in a batch; a first layer that takes 255 times as much of pixels that are 255 times smaller."""
    net, rows = critic(Image((3, 40, 36)), stack), images(3, 40, 36)
    values = net(as_observations(rows))
    assert values.shape == (5,)
    one_by_one = torch.cat([net(as_observations(row)) for row in rows.split(1)])
    assert torch.allclose(values, one_by_one, atol=1e-5)
    inside = nn.Sequential(*list(net.net)[1:])
    assert torch.allclose(values, inside(rows / 255.0).squeeze(-1), atol=1e-6)


@pytest.mark.parametrize("stack", STACKS)
def test_weights_are_orthogonal_with_the_asked_gain_and_biases_zero(stack: Stack) -> None:
    named = [
        (name, m)
        for name, m in policy(Image((36, 36, 3)), stack).named_modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    gains = [1.4 / math.sqrt(6) if name.endswith("second") else 1.4 for name, _ in named]
    gains[-1] = 0.5
    for (_, layer), gain in zip(named, gains, strict=True):
        w = layer.weight.detach().flatten(1)
        gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        assert torch.allclose(gram, gain**2 * torch.eye(len(gram)), atol=1e-5)
        assert layer.bias is not None and bool((layer.bias == 0).all())


def test_building_one_draws_from_its_own_stream_alone() -> None:
    before = torch.get_rng_state()
    first, again = policy(Image((36, 36, 3)), "impala"), policy(Image((36, 36, 3)), "impala")
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_continuous_actions_get_their_heads() -> None:
    obs, action = Image((36, 36, 3)), Continuous((2,), (-1.0, 0.0), (1.0, 5.0))
    assert isinstance(policy(obs, action=action)(as_observations(images(36, 36, 3))), DiagonalGaussian)
    squashed = policy(obs, action=action, continuous="squashed_gaussian")
    assert isinstance(squashed(as_observations(images(36, 36, 3))), SquashedGaussian)


@pytest.mark.parametrize("stack", STACKS)
def test_both_fisher_products_and_the_scores_go_through_convolutions_and_pools(stack: Stack) -> None:
    side = 36 if stack == "nature" else 9
    net, obs = (
        policy(Image((side, side, 1)), stack, hidden=4).double(),
        as_observations(images(side, side, 1)),
    )
    net.net.insert(0, Doubled())
    vector = torch.randn(size(net), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    product = gauss_newton_product(net, obs)(vector)
    assert torch.allclose(product, kl_hessian_product(net, obs)(vector), rtol=1e-9, atol=1e-12)
    assert float(vector @ product) > 0
    action = net(obs).sample(torch.Generator().manual_seed(0))
    total = torch.autograd.grad(net(obs).log_prob(action).sum(), list(net.parameters()))
    rows_of = scores(net, obs, action)
    assert rows_of.shape == (5, size(net))
    assert torch.allclose(rows_of.sum(0), torch.cat([g.flatten() for g in total]), rtol=1e-9, atol=1e-12)


class Doubled(nn.Module):
    """Pixels in double precision, for tests that compare derivatives."""

    def forward(self, obs: Tensor) -> Tensor:
        return obs.double()


@pytest.mark.parametrize("obs", [Continuous((36, 36, 3)), Discrete(5), Continuous((3,))])
def test_observations_that_are_no_images_are_refused(obs: ObsSpec) -> None:
    with pytest.raises(UserError, match=r"policy=cnn.*policy=mlp"):
        policy(obs)
    with pytest.raises(UserError, match=r"critic=cnn.*critic=mlp"):
        critic(obs)


@pytest.mark.parametrize(("side", "steps"), [(7, "7,"), (15, "15 -> 2,"), (35, "35 -> 7 -> 2,")])
def test_images_too_small_for_the_nature_stack_are_refused_with_the_arithmetic(side: int, steps: str) -> None:
    for shape in ((side, 84, 3), (84, side, 3)):
        with pytest.raises(UserError, match=f"policy.stack=nature.*{side} pixels.*{steps}.*impala.*mlp"):
            policy(Image(shape), layout="last")
        assert policy(Image(shape), "impala", "last")(as_observations(images(*shape))).logits.shape == (
            5,
            3,
        )
    policy(Image((36, 36, 3)))


@pytest.mark.parametrize("channels_first", ["false", "true"])
def test_pixels_are_bytes_in_rollout_and_batch_and_never_normalized(make: Make, channels_first: str) -> None:
    trainer = make("algo=ppo", *CATCH, f"env.kwargs.channels_first={channels_first}")
    rollout = trainer.runner.collect(trainer.agent)
    batch = trainer.algorithm.estimate(trainer.agent, rollout)
    assert isinstance(trainer.agent.normalizer, Identity)
    assert {rollout.obs.dtype, rollout.next_obs.dtype, batch.obs.features.dtype} == {torch.uint8}
    pixels = 36 * 36 * 3
    assert batch.obs.features.nbytes == len(batch) * pixels
    # T + 1 moments of N environments are kept once; obs and next_obs are two views of them.
    assert rollout.obs.untyped_storage().nbytes() == 65 * 4 * pixels
    assert rollout.obs.untyped_storage().data_ptr() == rollout.next_obs.untyped_storage().data_ptr()
    assert set(rollout.obs.unique().tolist()) == {0, 255}
    assert (
        len({tuple(image.flatten().tolist()) for image in rollout.obs[:, 0]}) > 12
    )  # no one array, overwritten


@pytest.mark.parametrize("stack", STACKS)
def test_the_signal_keeps_its_scale_through_the_layers(stack: Stack) -> None:
    rows = images(84, 84, 3, rows=16)
    net = nn.Sequential(*list(critic(Image((84, 84, 3)), stack, hidden=64).net)[:-2])
    assert 0.1 < float(net(rows).detach().std()) / float((rows / 255).std()) < 10


@pytest.mark.parametrize(
    ("rule", "stack"),
    [
        ("ppo", "nature"),
        *(pytest.param(*each, marks=pytest.mark.system) for each in (("trpo", "nature"), ("ppo", "impala"))),
    ],
)
def test_rules_train_and_evaluate_on_images(make: Make, rule: str, stack: str) -> None:
    small = (
        ["algo.critic_minibatch_size=32"] if rule == "trpo" else ["algo.epochs=1", "algo.minibatch_size=32"]
    )
    trainer = make(
        f"algo={rule}",
        *small,
        *CATCH,
        f"policy.stack={stack}",
        f"critic.stack={stack}",
        "trainer.total_steps=64",
        "runner.rollout_steps=16",
        "env.num_envs=2",
        "trainer.eval_every=64",
        "trainer.eval_episodes=1",
    )
    before = torch.cat([p.detach().flatten() for p in trainer.agent.policy.parameters()])
    trainer.train()
    after = torch.cat([p.detach().flatten() for p in trainer.agent.policy.parameters()])
    assert bool(after.isfinite().all()) and not torch.equal(before, after)


def test_the_first_policy_is_nearly_the_same_at_every_image(make: Make) -> None:
    trainer = make("algo=ppo", *CATCH)
    rollout = trainer.runner.collect(trainer.agent)
    batch = trainer.algorithm.estimate(trainer.agent, rollout)
    entropy = trainer.agent.policy(batch.obs).entropy()
    assert torch.allclose(entropy, torch.full_like(entropy, math.log(3)), atol=1e-3)
