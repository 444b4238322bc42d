"""Pictures to a video: MP4 (H.264), which every player knows, or GIF, which every browser and TensorBoard shows."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pgx.core.errors import UserError
from pgx.core.imports import import_problem
from pgx.core.text import shown
from pgx.envs.render.rendering_env import Frame, RGBImage

Kind = Literal["mp4", "gif"]
LIMITS: dict[Kind, int] = {"mp4": 60, "gif": 25}  # frames a second, of more of which players show fewer
LAST_FRAME_SECONDS = 0.6  # seconds for which the last picture of a GIF stays before it begins anew
GIF_TICK_SECONDS = 0.01  # seconds: GIFs count time in these


def kind_of(out: Path) -> Kind:
    """What kind of video a file of this name is.

    Raises:
        UserError: none that can be written here.
    """
    match out.suffix.lower():
        case ".gif":
            return "gif"
        case ".mp4":
            if problem := import_problem("av"):
                raise UserError(f"--out {out}: MP4 needs PyAV: {problem}; or choose a file that ends in .gif")
            return "mp4"
    raise UserError(f"--out {out}: expected a file that ends in .mp4 or .gif")


class MP4:
    """H.264 in an MP4 file, written while the pictures come.

    Args:
        path: of the file.
        fps: frames a second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        import av

        self._container: Any = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._rate = Fraction(fps).limit_denominator(1000)
        self._stream: Any = None

    def add(self, image: RGBImage) -> None:
        import av

        height, width = (n - n % 2 for n in image.shape[:2])  # H.264 halves the colours of 2 x 2 pixels
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        whole = np.ascontiguousarray(image[:height, :width])
        self._write(av.VideoFrame.from_ndarray(whole, format="rgb24"))

    def _write(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def finish(self) -> None:
        """What the encoder still holds is written."""
        if self._stream is not None:
            self._write(None)
        self._container.close()


class GIF:
    """An animated GIF, kept until it is whole.

    Args:
        fps: frames a second.
        width: pixels that wider pictures are shrunk to; None: as they are.
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
        # With colours of its own each, and no dithering: a picture takes a tenth of the memory, and moves no grain.
        self._frames.append(frame.quantize(dither=Image.Dither.NONE))

    def finish(self) -> bytes:
        """The file."""
        ticks = max(2, round(1 / (self._fps * GIF_TICK_SECONDS)))  # of one tick browsers make ten
        times = [int(1000 * GIF_TICK_SECONDS * ticks)] * len(self._frames)
        times[-1] = max(times[-1], int(1000 * LAST_FRAME_SECONDS))
        file = io.BytesIO()
        first, *rest = self._frames
        first.save(file, "GIF", save_all=True, append_images=rest, duration=times, loop=0, optimize=False)
        return file.getvalue()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._frames[0].size


_MARGIN = 0.02  # of the height


_LETTERS = 0.045  # of the height


_SMALLEST = 9  # pixels of letters that can be read


def add_caption(frame: Frame) -> RGBImage:
    """A frame with its return and its step in the corner."""
    image = Image.fromarray(frame.image)
    size = max(_SMALLEST, round(_LETTERS * image.height))
    margin = max(2, round(_MARGIN * image.height))
    draw = ImageDraw.Draw(image, "RGBA")
    font: Any = ImageFont.load_default(size)
    text = f"return {shown(frame.episode_return)}   step {frame.step:,}"
    left, top, right, bottom = draw.textbbox((2 * margin, 2 * margin), text, font=font)
    draw.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill=(0, 0, 0, 150))
    draw.text((2 * margin, 2 * margin), text, font=font, fill=(255, 255, 255, 255))
    return np.asarray(image)
