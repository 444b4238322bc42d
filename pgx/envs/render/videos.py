"""Video files of rendered episodes: MP4 (H.264) and GIF, with a caption on each frame."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pgx.core.errors import UserError
from pgx.core.imports import import_problem
from pgx.core.text import format_number
from pgx.envs.render.rendering_env import Frame, RGBImage

VideoFormat = Literal["mp4", "gif"]
MAX_FPS: dict[VideoFormat, int] = {"mp4": 60, "gif": 25}  # players skip frames of faster videos
_LAST_FRAME_SECONDS = 0.6  # duration of a GIF's last frame before it loops
_GIF_TICK_SECONDS = 0.01  # unit of durations in GIF files

# Sizes of the caption, relative to the height of a frame.
_MARGIN = 0.02
_FONT_SIZE = 0.045
_MIN_FONT_PIXELS = 9  # readable


def format_of(out: Path) -> VideoFormat:
    """Return the format of a video file by its suffix.

    Raises:
        UserError: pgx cannot write the format here.
    """
    match out.suffix.lower():
        case ".gif":
            return "gif"
        case ".mp4":
            if problem := import_problem("av"):
                raise UserError(f"{out}: MP4 needs PyAV: {problem}; or choose a file that ends in .gif")
            return "mp4"
    raise UserError(f"{out}: expected a file that ends in .mp4 or .gif")


class MP4:
    """Writer of an MP4 file with H.264, which writes frames as they are added.

    Args:
        path: of the file.
        fps: frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        import av

        self._container: Any = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._rate = Fraction(fps).limit_denominator(1000)
        self._stream: Any = None

    def add(self, image: RGBImage) -> None:
        import av

        height, width = (n - n % 2 for n in image.shape[:2])  # H.264 stores one color per 2 x 2 pixels
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        even = np.ascontiguousarray(image[:height, :width])
        self._write(av.VideoFrame.from_ndarray(even, format="rgb24"))

    def _write(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def finish(self) -> None:
        """Flush the encoder and close the file."""
        if self._stream is not None:
            self._write(None)
        self._container.close()


class GIF:
    """Animated GIF, kept in memory until it is finished.

    Args:
        fps: frames per second.
        width: maximum width in pixels, to which wider images are scaled; None: no limit.
    """

    def __init__(self, fps: float, width: int | None) -> None:
        self._fps = fps
        self._width = width
        self._frames: list[Image.Image] = []

    def add(self, image: RGBImage) -> None:
        frame = Image.fromarray(image)
        if self._width is not None and frame.width > self._width:
            size = self._width, max(1, round(frame.height * self._width / frame.width))
            frame = frame.resize(size, Image.Resampling.LANCZOS)
        # A palette for each frame takes a tenth of the memory; without dithering, still areas do not flicker.
        self._frames.append(frame.quantize(dither=Image.Dither.NONE))

    def finish(self) -> bytes:
        """Return the content of the file."""
        ticks = max(2, round(1 / (self._fps * _GIF_TICK_SECONDS)))  # browsers show frames of 1 tick for 10
        durations = [int(1000 * _GIF_TICK_SECONDS * ticks)] * len(self._frames)
        durations[-1] = max(durations[-1], int(1000 * _LAST_FRAME_SECONDS))
        file = io.BytesIO()
        first, *rest = self._frames
        first.save(file, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=False)
        return file.getvalue()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._frames[0].size


def add_caption(frame: Frame) -> RGBImage:
    """Return a frame's image with its return and its step in the corner."""
    image = Image.fromarray(frame.image)
    size = max(_MIN_FONT_PIXELS, round(_FONT_SIZE * image.height))
    margin = max(2, round(_MARGIN * image.height))
    draw = ImageDraw.Draw(image, "RGBA")
    font: Any = ImageFont.load_default(size)
    text = f"return {format_number(frame.episode_return)}   step {frame.step:,}"
    left, top, right, bottom = draw.textbbox((2 * margin, 2 * margin), text, font=font)
    draw.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill=(0, 0, 0, 150))
    draw.text((2 * margin, 2 * margin), text, font=font, fill=(255, 255, 255, 255))
    return np.asarray(image)
