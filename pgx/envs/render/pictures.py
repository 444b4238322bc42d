"""Frames as they are shown: with what the episode has earned so far written on them."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pgx.core.formatting import shown
from pgx.envs.render.camera import Frame
from pgx.envs.render.scene import Picture

_MARGIN = 0.02  # of the height
_LETTERS = 0.045  # of the height
_SMALLEST = 9  # pixels of letters that can be read


def captioned(frame: Frame) -> Picture:
    """A frame with its return and its step in the corner."""
    image = Image.fromarray(frame.picture)
    size = max(_SMALLEST, round(_LETTERS * image.height))
    margin = max(2, round(_MARGIN * image.height))
    draw = ImageDraw.Draw(image, "RGBA")
    font: Any = ImageFont.load_default(size)
    text = f"return {shown(frame.episode_return)}   step {frame.step:,}"
    left, top, right, bottom = draw.textbbox((2 * margin, 2 * margin), text, font=font)
    draw.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill=(0, 0, 0, 150))
    draw.text((2 * margin, 2 * margin), text, font=font, fill=(255, 255, 255, 255))
    return np.asarray(image)
