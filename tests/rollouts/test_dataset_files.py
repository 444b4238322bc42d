"""Datasets: written and read without change, in Minari's layout."""

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minari.namespace import list_local_namespaces

from pgx.core.data import Rollout
from pgx.core.errors import UserError
from pgx.core.specs import MultiDiscrete
from pgx.envs.gymnasium_backend import GymnasiumVector, make_single
from pgx.rollouts.dataset_files import (
    DatasetSummary,
    RecordedEpisode,
    _numbers,
    _to_space,
    join_episodes,
    read_dataset,
    space_from_json,
    space_to_json,
    split_episodes,
    write_dataset,
)
from tests.conftest import Make

ENVS = {
    "discrete": "CartPole-v1",
    "continuous": "Pendulum-v1",
    "numbers from 5": "tests.environments:TwoButtons-v0",
    "cut and clipped": "tests.environments:Counter-v0",
}


def played(make: Make, env_id: str, *overrides: str, name: str = "run") -> Rollout:
    trainer = make("algo=reinforce", f"env={env_id}", "env.scale_reward=false", *overrides, name=name)
    rollout = trainer.runner.collect(trainer.agent)
    trainer.runner.close()
    return rollout


def written(path: Path, env_id: str, episodes: list[RecordedEpisode], **metadata: Any) -> DatasetSummary:
    env = make_single(env_id, {})
    try:
        return write_dataset(path, episodes, env.observation_space, env.action_space, metadata)
    finally:
        env.close()


def read(path: Path, env_id: str) -> list[RecordedEpisode]:
    envs = GymnasiumVector(env_id, 1, {}, first_index=0)
    try:
        return read_dataset(path, envs)
    finally:
        envs.close()


def assert_same(one: list[RecordedEpisode], two: list[RecordedEpisode]) -> None:
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        for column in fields(RecordedEpisode):
            x, y = getattr(a, column.name), getattr(b, column.name)
            assert torch.equal(x, y) and x.dtype == y.dtype if isinstance(x, torch.Tensor) else x == y


# --- episodes and rollouts


def test_split_and_joined_episodes_are_the_rollout(make: Make) -> None:
    rollout = played(make, "CartPole-v1", "runner.episodes_per_env=3")
    episodes = split_episodes(rollout)
    assert len(episodes) == 12 and sum(len(e) for e in episodes) == rollout.steps
    joined = join_episodes(episodes)
    assert_same(split_episodes(joined), episodes)
    assert joined.valid.shape == (max(len(e) for e in episodes), 12) and joined.steps == rollout.steps
    for i, episode in enumerate(episodes):
        steps = len(episode)
        assert bool(joined.valid[:steps, i].all()) and not bool(joined.valid[steps:, i].any())
        assert joined.done[:, i].nonzero().flatten().tolist() == [steps - 1]
        assert joined.time[:steps, i].tolist() == list(range(steps))
        assert torch.equal(joined.next_obs[: steps - 1, i], joined.obs[1:steps, i])
        assert torch.equal(joined.next_obs[steps - 1, i], episode.obs[-1])


# --- writing and reading


@pytest.mark.parametrize("kind", ENVS)
def test_datasets_are_read_as_written(make: Make, tmp_path: Path, kind: str) -> None:
    episodes = split_episodes(played(make, ENVS[kind]))
    summary = written(tmp_path / "d", ENVS[kind], episodes)
    returns = [float(e.reward.sum()) for e in episodes]
    assert summary == (4, sum(len(e) for e in episodes), pytest.approx(np.mean(returns), rel=1e-5))
    assert_same(read(tmp_path / "d", ENVS[kind]), episodes)
    assert_same(read(tmp_path / "d" / "data", ENVS[kind]), episodes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "run"]


def test_action_masks_are_kept(make: Make, tmp_path: Path) -> None:
    episodes = [
        replace(e, action_mask=torch.rand(len(e), 2) < 0.5)
        for e in split_episodes(played(make, "CartPole-v1"))
    ]
    written(tmp_path / "d", "CartPole-v1", episodes)
    assert_same(read(tmp_path / "d", "CartPole-v1"), episodes)
    mask = join_episodes(episodes).action_mask
    assert mask is not None and bool(
        mask[~join_episodes(episodes).valid].all()
    )  # padding allows every action


def test_the_file_has_the_environment_s_own_numbers_in_minari_s_layout(make: Make, tmp_path: Path) -> None:
    buttons, pendulum = ENVS["numbers from 5"], ENVS["continuous"]
    episodes = split_episodes(played(make, buttons))
    written(tmp_path / "buttons", buttons, episodes)
    with h5py.File(tmp_path / "buttons" / "data" / "main_data.hdf5") as file:
        assert set(file) == {f"episode_{i}" for i in range(4)}
        group = file["episode_2"]
        assert group["observations"][:].min() >= 5
        assert group["observations"][:].tolist() == (episodes[2].obs + 5).tolist()
        assert dict(group.attrs) == {"id": 2, "total_steps": 10}
        assert group["terminations"][:].tolist() == [False] * 9 + [True]
        assert not group["truncations"][:].any()
    metadata = json.loads((tmp_path / "buttons" / "data" / "metadata.json").read_text())
    assert (metadata["total_episodes"], metadata["total_steps"]) == (4, 40)
    assert metadata["data_format"] == "hdf5" and metadata["dataset_id"] == "buttons-v0"
    bold = split_episodes(played(make, pendulum, "policy.log_std_init=2.0", name="bold"))
    written(tmp_path / "pendulum", pendulum, bold)
    with h5py.File(tmp_path / "pendulum" / "data" / "main_data.hdf5") as file:
        group = file["episode_0"]
        assert np.abs(group["actions"][:]).max() == 2.0 < np.abs(group["infos/sample"][:]).max()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1.5, 2.5, (3,), np.float32),
        spaces.Box(np.array([-np.inf, 0.0]), np.array([np.inf, 1.0]), dtype=np.float64),
        spaces.Box(0, 255, (4, 5, 3), np.uint8),
        spaces.Discrete(7, start=-2),
        spaces.MultiDiscrete([3, 2], start=[1, 0]),
        spaces.MultiDiscrete([[3, 2], [2, 4]], start=[[1, 0], [0, 2]]),
    ],
)
def test_spaces_survive_json(space: "gymnasium.Space[Any]") -> None:
    assert space_from_json(space_to_json(space)) == space


def test_multidimensional_choices_are_read_as_written() -> None:
    space = spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [2, 3]])
    taken = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 4], [1, 2, 0, 0]])
    stored = _to_space(space, taken)
    assert space.contains(stored[0])
    assert torch.equal(_numbers("here", stored, space, MultiDiscrete((2, 3, 4, 5)), 3), taken)


# --- errors


def test_writing_never_overwrites_and_a_failure_leaves_nothing(make: Make, tmp_path: Path) -> None:
    episodes = split_episodes(played(make, "CartPole-v1"))
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="already exists"):
        written(tmp_path / "there", "CartPole-v1", episodes)

    def broken() -> Any:
        yield episodes[0]
        raise KeyboardInterrupt

    env = make_single("CartPole-v1", {})
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "d", broken(), env.observation_space, env.action_space, {})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        written(tmp_path / "file" / "d", "CartPole-v1", episodes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "run", "there"]


def change(path: str, value: Any) -> Callable[[Path], None]:
    """Return a function that replaces a dataset of the HDF5 file; None removes it."""

    def damage(folder: Path) -> None:
        with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
            old = file[path][()]
            del file[path]
            if value is not None:
                file[path] = value(old)

    return damage


def write_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "data" / name).write_text(text) and None


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "gone": (shutil.rmtree, "no such folder; write a dataset with `pgx collect RUN --episodes 100 --out"),
    "no data": (lambda d: (d / "data" / "main_data.hdf5").unlink(), "no main_data.hdf5 in"),
    "not JSON": (write_text("metadata.json", "{"), "metadata.json is invalid: JSONDecodeError"),
    "no spaces": (
        write_text("metadata.json", "{}"),
        "metadata.json is invalid: KeyError: 'observation_space'",
    ),
    "not HDF5": (write_text("main_data.hdf5", "text"), "main_data.hdf5 cannot be read"),
    "no probabilities": (
        change("episode_1/infos/log_prob", None),
        "episode_1: no infos/log_prob: importance weights need log mu.*record the dataset with pgx collect",
    ),
    "lengths": (
        change("episode_1/observations", lambda x: x[1:]),
        r"episode_1, observations: expected shape",
    ),
    "not a number": (
        change("episode_2/infos/log_prob", lambda x: x * np.nan),
        "episode_2, infos/log_prob: contains NaN or infinite numbers",
    ),
    "outside": (
        change("episode_0/actions", lambda x: x + 2),
        r"episode_0, actions: contains numbers outside of Discrete\(2\)",
    ),
    "no end": (
        change("episode_3/terminations", np.zeros_like),
        "episode_3: expected terminated or truncated at the last step",
    ),
    "two ends": (
        change("episode_3/terminations", np.ones_like),
        "episode_3: expected terminated or truncated at the last step",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_invalid_datasets_are_refused(make: Make, tmp_path: Path, kind: str) -> None:
    damage, words = DAMAGE[kind]
    written(tmp_path / "d", "CartPole-v1", split_episodes(played(make, "CartPole-v1")))
    damage(tmp_path / "d")
    with pytest.raises(UserError, match=words):
        read(tmp_path / "d", "CartPole-v1")


def test_a_dataset_of_other_observations_or_actions_is_refused(make: Make, tmp_path: Path) -> None:
    written(tmp_path / "d", "CartPole-v1", split_episodes(played(make, "CartPole-v1")))
    with pytest.raises(UserError) as caught:
        read(tmp_path / "d", "Pendulum-v1")
    assert len(caught.value.problems) == 2
    assert "its observations are" in caught.value.problems[0] and "Pendulum-v1" in caught.value.problems[1]


def test_a_missing_h5py_is_named_with_its_extra(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install 'pgx-rl\[dataset\]'"):
        written(tmp_path / "d", "CartPole-v1", [])
    with pytest.raises(UserError, match=r"pip install 'pgx-rl\[dataset\]'"):
        read(tmp_path / "d", "CartPole-v1")


# --- Minari


def test_minari_reads_what_is_written(make: Make, tmp_path: Path) -> None:
    for kind, env_id in ENVS.items():
        episodes = split_episodes(played(make, env_id, name=kind))
        path = tmp_path / f"of_{kind.replace(' ', '_')}"
        written(path, env_id, episodes, algorithm_name="reinforce")
        dataset = minari.MinariDataset(path / "data")
        assert dataset.total_episodes == 4 and dataset.total_steps == sum(len(e) for e in episodes)
        for episode, read_back in zip(episodes, dataset, strict=True):
            assert all(dataset.observation_space.contains(x) for x in read_back.observations)
            assert all(dataset.action_space.contains(a) for a in read_back.actions)
            assert read_back.rewards.tolist() == episode.reward.tolist()
            assert read_back.infos["log_prob"].tolist() == episode.log_prob.tolist()
            assert (read_back.terminations[-1], read_back.truncations[-1]) == (
                episode.terminated,
                episode.truncated,
            )


def test_datasets_of_minari_are_read(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    episodes = split_episodes(played(make, "CartPole-v1"))
    buffers = [
        minari.data_collector.EpisodeBuffer(
            observations=e.obs.numpy(),
            actions=e.action.numpy(),
            rewards=e.reward.numpy(),
            terminations=[False] * (len(e) - 1) + [e.terminated],
            truncations=[False] * (len(e) - 1) + [e.truncated],
            infos={"log_prob": e.log_prob.numpy()},
        )
        for e in episodes
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari asks for an author
        minari.create_dataset_from_buffers("cartpole/random-v0", buffers, env="CartPole-v1")
    assert_same(read(tmp_path / "cartpole" / "random-v0", "CartPole-v1"), episodes)


def test_minari_lists_datasets_in_its_folder(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    episodes = split_episodes(played(make, "CartPole-v1"))
    names = ["plain-v0", "one/of-v1", "one/two/of-v0", "three/four/of-v0"]
    for name in names:
        path = tmp_path / "minari" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written(path, "CartPole-v1", episodes, algorithm_name="reinforce")
    assert sorted(minari.list_local_datasets()) == sorted(
        names
    )  # Minari would warn of others, and warnings are errors
    assert list_local_namespaces() == ["one", "one/two", "three", "three/four"]
    assert minari.load_dataset("one/two/of-v0").total_episodes == len(episodes)
    written(tmp_path / "elsewhere-v0", "CartPole-v1", episodes)
    assert minari.MinariDataset(tmp_path / "elsewhere-v0" / "data").id == "elsewhere-v0"
