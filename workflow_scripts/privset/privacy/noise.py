"""The generators behind a vault's randomness."""

from __future__ import annotations

import os

import torch


def noise_generator(device: torch.device | str, *, seed: int | None) -> torch.Generator:
    """The generator of a vault's randomness: from the operating system's entropy (`seed` None), or reproducible.

    On a CPU the whole state of the Mersenne Twister, 19,937 bits, is filled from the operating system: seeding it with an
    integer would use 32 bits of it. On CUDA the generator (Philox) takes a key of 64 bits.
    """
    generator = torch.Generator(device)
    if seed is not None:
        return generator.manual_seed(seed)
    generator.manual_seed(int.from_bytes(os.urandom(8), "little"))
    if generator.device.type == "cpu":
        # The serialised state begins with the seed (8 bytes), then `left` and `seeded` (4 bytes each), `next` (8 bytes)
        # and 624 words of the Mersenne Twister, each in 8 bytes of which the lower 4 count.
        state = generator.get_state()
        words = torch.frombuffer(bytearray(os.urandom(4 * 624)), dtype=torch.uint8).view(624, 4)
        state[24 : 24 + 8 * 624].view(624, 8)[:, :4] = words
        generator.set_state(state)
    return generator
