"""Independent random streams from one seed, each addressed by what it is for."""

import zlib

import numpy as np
import torch


def derive(seed: int, purpose: str, index: int = 0) -> int:
    """Return a 31-bit seed for one purpose; different purposes, indices and seeds give unrelated streams.

    Args:
        seed: of the run.
        purpose: what the stream is for, e.g. "environments".
        index: e.g. the iteration.
    """
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), index])
    # One bit short of 32, and room above for the environments' seed + 0, ..., seed + N - 1.
    return int(sequence.generate_state(1)[0]) % (2**31 - 2**20)


def generator(seed: int, purpose: str, device: torch.device | str = "cpu", index: int = 0) -> torch.Generator:
    """Return an independent random stream on a device; Args as in `derive`."""
    return torch.Generator(device).manual_seed(derive(seed, purpose, index))
