"""Scattering coefficients: wavelets, moduli and averages of an image (Bruna and Mallat, IEEE TPAMI 2013). Nothing in it is
learned, so it is public, whatever the data.

Two scales and eight angles, orders 0 to 2: 1 + 16 + 64 = 81 averages at every fourth pixel. The wavelets are those of kymatio
(Andreux et al., JMLR 2020), so that a unit test can compare its numbers: Morlets of width 0.8 2^j and frequency (3 pi / 4) 2^-j,
twice as long across as along, and a Gaussian of width 1.6 as the average. The image is mirrored at its border.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

ANGLES = 8
PATHS = 1 + 2 * ANGLES + ANGLES**2
STEP = 4
"""Pixels between two averages: 2^2 for two scales."""
_CHUNK = 16
"""Images at a time: what stays in a processor's cache."""


def side(size: int) -> int:
    """Of the map of averages of an image of `size` x `size` pixels."""
    return (size + STEP) // STEP - 1


def _periodic(size: int) -> Tensor:
    """(5, size) float64: the places of a pixel and of its copies in the periods around it."""
    return torch.arange(size, dtype=torch.float64) + size * torch.arange(-2, 3, dtype=torch.float64)[:, None]


@functools.cache
def _wavelets(size: int) -> Tensor:
    """(2 scales, angles, size, size) complex64: Fourier transforms of the Morlets, which are real."""
    places = _periodic(size)
    x, y = places[:, None, :, None], places[None, :, None, :]  # (5, 5, size, size)
    found = []
    for scale in range(2):
        width, frequency = 0.8 * 2**scale, 0.75 * math.pi / 2**scale
        for index in range(ANGLES):
            angle = (ANGLES // 2 - 1 - index) * math.pi / ANGLES
            along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
            envelope = torch.exp(-(along**2 + (4 / ANGLES * across) ** 2) / (2 * width**2))
            wave = (envelope * torch.exp(1j * frequency * along)).sum((0, 1))
            envelope = envelope.sum((0, 1))
            morlet = (wave - wave.sum() / envelope.sum() * envelope) / (2 * math.pi * width**2 * ANGLES / 4)
            found.append(torch.fft.fft2(morlet).real)
    return torch.stack(found).view(2, ANGLES, size, size).to(torch.complex64)


@functools.cache
def _average(size: int, coarse: bool) -> Tensor:
    """(side, columns) float32: what averages a row of `size` pixels, or of every second of them, at every fourth. The map is
    separable, so that an image's is this on both sides."""
    gaussian = torch.exp(-(_periodic(size) ** 2) / (2 * 1.6**2)).sum(0) / (math.sqrt(2 * math.pi) * 1.6)
    step, columns = (STEP // 2, size // 2) if coarse else (STEP, size)
    if coarse:  # the frequencies that a map of every second pixel has
        spectrum = torch.fft.fft(gaussian)
        gaussian = torch.fft.ifft(torch.cat([spectrum[: size // 4], spectrum[-(size // 4) :]])).real
    centres = step * torch.arange(1, size // STEP - 1)
    return gaussian[(centres[:, None] - torch.arange(columns)) % columns].float()


def _every_second(spectrum: Tensor) -> Tensor:
    """The spectrum of every second pixel of a map, from the map's."""
    half = spectrum.shape[-1] // 2
    rows = spectrum[..., :half, :] + spectrum[..., half:, :]  # `mean` over two dimensions takes ten times as long
    return (rows[..., :half] + rows[..., half:]) / 4


def _some(pixels: Tensor) -> Tensor:
    """(B, H, W) to (B, PATHS, side, side)."""
    size = pixels.shape[-1]
    padded = (size // STEP + 2) * STEP
    before = (padded - size) // 2
    after = padded - size - before
    pixels = F.pad(pixels, (before, after, before, after), mode="reflect")
    fine, coarse = _average(padded, False).to(pixels), _average(padded, True).to(pixels)
    first, second = _wavelets(padded).to(pixels.device)
    spectrum = torch.fft.fft2(pixels)[:, None]
    small = torch.fft.ifft2(spectrum * first).abs()
    large = torch.fft.ifft2(_every_second(spectrum * second)).abs()
    both = torch.fft.fft2(small)[:, :, None] * second
    both = torch.fft.ifft2(_every_second(both)).abs().flatten(1, 2)
    return torch.cat([fine @ torch.cat([pixels[:, None], small], 1) @ fine.T, coarse @ torch.cat([large, both], 1) @ coarse.T], 1)


def coefficients(pixels: Tensor) -> Tensor:
    """(N, C, H, W) pixels in [0, 1] to (N, C * PATHS, side, side). Each image's from its own alone; absent ones fill up the last
    chunk, so that all are computed in the same way."""
    n, channels, size, _ = pixels.shape
    flat = pixels.reshape(n * channels, size, size)
    missing = -len(flat) % _CHUNK
    chunks = torch.cat([flat, flat.new_zeros(missing, size, size)]).split(_CHUNK)
    found = torch.cat([_some(chunk) for chunk in chunks])[: n * channels]
    return found.view(n, channels * PATHS, side(size), side(size))
