"""Rendering and videos: frames, speed, captions, and errors where rendering is impossible."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pgx.cli.record import record
from pgx.core.errors import RunError, UserError
from pgx.envs.gymnasium_backend import make_single
from pgx.envs.registry import pickle_env
from pgx.envs.render.rendering_env import (
    Frame,
    RenderingEnv,
    RenderSettings,
    _render_problem,
    choose_opengl,
    track_robot,
)
from pgx.envs.render.videos import GIF, add_caption
from pgx.envs.vector import step
from tests.conftest import Make, parameters
from tests.environments import Painted

PAINTED = "tests.environments:Painted-v0"  # 100 frames a second, 23 steps, grey 10 x step
TINY = ["algo=a2c", f"env={PAINTED}", "env.num_envs=2", "runner.rollout_steps=8", "trainer.total_steps=64"]
ANY = np.zeros(1, np.int64)


def frames_of(limit: int, seconds: float | None, episodes: int, **kwargs: Any) -> tuple[list[Frame], float]:
    """Render episodes; return the frames and the frames per second."""
    camera, shown = RenderingEnv(PAINTED, kwargs, None, 60.0, limit, seconds), list[Frame]()
    camera.on_frame = shown.append
    try:
        camera.reset(seed=0)
        while episodes:
            took = step(camera, ANY)
            episodes -= bool(took.truncated[0])
    finally:
        camera.close()
    return shown, camera.fps


def test_frames_match_their_steps_and_episodes_are_complete() -> None:
    shown, fps = frames_of(limit=100, seconds=None, episodes=2)
    assert fps == 100
    assert [(f.episode, f.step) for f in shown] == [(e, s) for e in range(2) for s in range(24)]
    assert all((f.image == 10 * f.step).all() and f.episode_return == f.step for f in shown)
    assert shown[0].image.shape == (101, 121, 3)


@pytest.mark.parametrize(("limit", "every", "fps"), [(99, 2, 50.0), (25, 4, 25.0), (24, 5, 20.0)])
def test_a_video_with_fewer_frames_plays_in_real_time(limit: int, every: int, fps: float) -> None:
    shown, told = frames_of(limit, None, episodes=1)
    assert told == fps <= limit
    assert [f.step for f in shown] == [*range(0, 23, every), 23]  # and the last step


def test_rendering_can_be_limited_to_the_beginning_of_an_episode() -> None:
    shown, _ = frames_of(limit=100, seconds=0.05, episodes=2)
    assert [(f.episode, f.step) for f in shown] == [(e, s) for e in range(2) for s in range(6)]


def test_the_caption_covers_a_corner_and_changes_with_its_text() -> None:
    blank = np.full((200, 300, 3), 90, np.uint8)
    first, second = (add_caption(Frame(blank, 0, at, 10.0 * at)) for at in (1, 2))
    assert (first != second).any() and (blank == 90).all()
    changed = np.argwhere((first != blank).any(axis=-1) | (second != blank).any(axis=-1))
    assert 0 < changed[:, 0].max() < 30 and changed[:, 1].max() < 250


def test_a_gif_plays_in_real_time() -> None:
    gif = GIF(25.0, width=60)
    for grey in range(50):
        gif.add(np.full((80, 120, 3), 5 * grey, np.uint8))
    with Image.open(io.BytesIO(gif.finish())) as read:
        assert read.size == (60, 40) == gif.size
        assert getattr(read, "n_frames") == 50  # noqa: B009
        lasts = []
        for number in range(50):
            read.seek(number)
            lasts.append(read.info["duration"])
            assert np.abs(np.asarray(read.convert("RGB")).astype(int) - 5 * number).max() <= 2
    assert lasts[:-1] == [40] * 49 and lasts[-1] > 40 and read.info["loop"] == 0


def test_the_error_of_rendering_gives_the_reason() -> None:
    def refused(**kwargs: Any) -> str:
        with pytest.raises((UserError, RunError)) as refusal:
            frames_of(100, None, 1, **kwargs)
        return str(refusal.value)

    assert "ValueError: no more paint" in refused(breaks=0)
    assert "ended with exit code 3" in refused(breaks=-7)
    assert "ValueError: no more paint" in refused(breaks=10)
    with pytest.raises(UserError, match="render_mode"):
        RenderingEnv("tests.environments:Counter-v0", {}, None, 60.0, 25, None)
    with pytest.raises(
        UserError, match="remove --width and --height, which this environment does not support"
    ):
        RenderingEnv(PAINTED, {}, (64, None), 60.0, 25, None)


def test_missing_drivers_are_reported_with_the_packages_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    # libEGL finds no driver.
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", "/nowhere.json")
    monkeypatch.setenv("PYOPENGL_PLATFORM", "")
    chosen = choose_opengl()
    if chosen.platform == "osmesa":
        pytest.skip("OSMesa is installed and needs no driver")
    assert chosen.platform is None and "apt-get install libegl1 libgl1-mesa-dri" in chosen.problem
    with pytest.raises(UserError, match=r"Hopper-v4.*apt-get install libegl1 libgl1-mesa-dri"):
        RenderingEnv("Hopper-v4", {}, None, 60.0, 25, None)


def test_the_user_s_choice_of_opengl_is_respected(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert choose_opengl().platform == "osmesa"
    for display in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(display, raising=False)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(UserError, match="MUJOCO_GL=glfw: does not work here; unset it and pgx chooses"):
        RenderingEnv("InvertedPendulum-v4", {}, None, 60.0, 25, None)
    assert capfd.readouterr() == ("", "")  # no warnings of GLFW


def test_the_camera_follows_a_robot_unless_another_was_chosen() -> None:
    def camera(env_id: str, **kwargs: Any) -> int:
        env = make_single(env_id, {"render_mode": "rgb_array", **kwargs})
        track_robot(env)
        env.close()
        return int(env.unwrapped.mujoco_renderer.camera_id)

    assert camera("Walker2d-v4") == camera("Walker2d-v5") == 0  # "track", the only one of the model
    assert camera("Walker2d-v5", camera_id=-1) == -1
    assert camera("InvertedPendulum-v4") == -1


def test_a_walker_is_recorded_in_the_requested_size(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if choose_opengl().platform is None:
        pytest.skip("MuJoCo cannot render here")
    av = pytest.importorskip("av")
    make("algo=a2c", "env=Walker2d-v4", "env.backend=gymnasium", "trainer.total_steps=256").train()
    out = tmp_path / "walker.mp4"
    record(str(tmp_path / "run"), "last", 2, True, str(out), 30, (161, 120), None, 0, trust=False)
    said = capsys.readouterr().out
    with av.open(str(out)) as video:
        stream = video.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
        assert (stream.width, stream.height) == (160, 120)
        assert stream.codec_context.name == "h264" and stream.average_rate == 25  # a fifth of its 125
    assert f"{len(pictures)} frames" in said
    moved = np.abs(pictures[0].astype(int) - pictures[len(pictures) // 2])
    assert pictures[0].std() > 10 and (moved > 30).mean() > 0.01
    assert [path.name for path in tmp_path.iterdir()] == ["run", "walker.mp4"] or len(
        list(tmp_path.iterdir())
    ) == 2


def test_a_gif_is_recorded_without_pyav(make: Make, tmp_path: Path) -> None:
    make(*TINY).train()
    out = tmp_path / "square.gif"
    record(str(tmp_path / "run"), "last", 2, False, str(out), None, None, None, 0, trust=True)
    with Image.open(out) as read:
        assert getattr(read, "n_frames") == 2 * 7  # noqa: B009  # steps 0, 4, ..., 20 and 23
    with pytest.raises(UserError, match=r"ends in \.mp4 or \.gif"):
        record(str(tmp_path / "run"), "last", 1, False, "square.avi", None, None, None, 0, trust=True)
    with pytest.raises(UserError, match="does not exist; create it"):
        record(
            str(tmp_path / "run"), "last", 1, False, str(tmp_path / "no" / "a.gif"), None, None, None, 0, True
        )


def videos(run: Path) -> dict[int, Image.Image]:
    """Return the videos in a run's TensorBoard events, by step."""
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    found = events.Images("eval/episode") if "eval/episode" in events.Tags()["images"] else []
    return {int(each.step): Image.open(io.BytesIO(each.encoded_image_string)) for each in found}


def test_videos_during_training_do_not_change_the_run(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # these are GIFs, which need no more than Pillow
    films = ["logger.sinks=[tensorboard]", "trainer.record_every=32", "trainer.record_width=50"]
    plain, filmed = (
        make(*TINY, name="plain"),
        make(*TINY, *films, "trainer.record_seconds=0.1", name="filmed"),
    )
    plain.train()
    filmed.train()
    assert torch.equal(parameters(plain), parameters(filmed))
    made = videos(tmp_path / "filmed")
    assert len(made) == 2
    assert all(32 * number <= step < 32 * number + 16 for number, step in enumerate(made, start=1))
    for video in made.values():
        assert video.format == "GIF" and video.size[0] == 50
        assert getattr(video, "n_frames") == 3  # noqa: B009  # steps 0, 4, 8 of the first tenth of a second


def test_a_video_that_fails_does_not_end_the_run(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = ["logger.sinks=[tensorboard]", "trainer.record_every=32", "env.kwargs.breaks=-8"]
    assert make(*TINY, *films).train()["status"] == "finished"
    assert "no video at 32 steps" in capsys.readouterr().err and videos(tmp_path / "run") == {}


def test_a_run_whose_environment_cannot_be_rendered_is_refused(make: Make) -> None:
    films = ["logger.sinks=[tensorboard]", "trainer.record_every=32"]
    with pytest.raises(UserError, match=r"trainer.record_every=32: .*render_mode"):
        make(*TINY, *films, "env=tests.environments:Counter-v0")


LYING = ["env=tests.environments:Lying-v0", "logger.sinks=[tensorboard]", "trainer.record_every=32"]


@pytest.mark.parametrize("lie", ["nothing", "numbers", "empty"])
def test_an_environment_whose_render_returns_no_image_is_refused(
    make: Make, tmp_path: Path, lie: str
) -> None:
    with pytest.raises(
        UserError, match=r"trainer.record_every=32: .*render\(\) .*expected an image"
    ) as refused:
        make(*TINY, *LYING, f"env.kwargs.lie={lie}")
    assert len(refused.value.problems) == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("lie", ["later", "grow", "metadata", "fast", "negative", "endless"])
def test_invalid_metadata_do_not_end_the_run(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], lie: str
) -> None:
    trainer = make(*TINY, *LYING, f"env.kwargs.lie={lie}", "trainer.total_steps=48")
    summary = trainer.train()
    assert summary["status"] == "finished" and summary["checkpoint_steps"] == summary["steps"]
    warned = "no video at 32 steps" in capsys.readouterr().err
    assert warned == (lie == "later") != bool(videos(tmp_path / "run"))


def test_a_closed_rendering_env_leaves_no_process_or_file() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        camera = RenderingEnv(PAINTED, {}, None, 60.0, 25, None)
        camera.close()
        assert camera._worker.process.poll() is not None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_environment_without_rgb_array_is_refused_with_its_render_modes() -> None:
    with pytest.raises(UserError, match=r"metadata\['render_modes'\] is \[\]; a video needs 'rgb_array'"):
        RenderingEnv("tests.environments:Counter-v0", {}, None, 60.0, 25, None)


@pytest.mark.filterwarnings("ignore")  # of Gymnasium
@pytest.mark.parametrize(
    ("metadata", "said"),
    [({}, "[]"), ({"render_modes": None}, "[]"), ({"render_modes": ["human", "ansi"]}, "['human', 'ansi']")],
)
def test_the_refusal_names_the_render_modes_of_any_metadata(
    monkeypatch: pytest.MonkeyPatch, metadata: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(Painted, "metadata", metadata)
    refused = _render_problem(
        RenderSettings(PAINTED, pickle_env(PAINTED, {"render_mode": "rgb_array"}), None, 25, None)
    )
    assert refused is not None and f"metadata['render_modes'] is {said}; a video needs" in refused
    monkeypatch.setattr(Painted, "metadata", {"render_modes": ["ansi", "rgb_array"]})
    assert _render_problem(RenderSettings(PAINTED, pickle_env(PAINTED, {}), None, 25, None)) is None


def test_pygame_renders_without_a_screen_and_without_output(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pygame")
    for key in ("XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(key, raising=False)
    camera = RenderingEnv("CartPole-v1", {}, None, 60.0, 25, None)
    camera.close()
    assert capfd.readouterr() == ("", "")


def test_a_run_that_needs_pygame_for_videos_is_refused_without_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pygame").mkdir()
    (tmp_path / "pygame" / "__init__.py").write_text("raise ModuleNotFoundError('none', name='pygame')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"trainer.record_every=32: .*package pygame; pip install 'pgx-rl\[video\]'"
    ):
        make("algo=a2c", "env=CartPole-v1", "env.backend=gymnasium", "trainer.record_every=32")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
