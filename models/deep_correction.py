"""The deep animator inside the renderer: encode the window once, then correct every band of every frame.

Features are splatted by the compiled loop on the displacements' grid and decoded only where something moves.
Frames are painted by many threads at once. Colours here are 0 … 255, the network's 0 … 1.
"""

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.animator import Animator
from models.loop_kernels import splat_features
from models.loop_plan import Box, LoopSource

__all__ = ["DeepCorrection"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Moving parts are decoded in runs of columns that start and end at multiples of this, and are no longer than
# so many of them: the decoder's buffers are some hundred bytes a pixel.
RUN = 64
LONGEST_RUN = 16
# The encoder looks four feature pixels around it; bands of about so many pixels keep its buffers small.
ENCODER_REACH = 4
ENCODER_PIXELS = 200_000


class DeepCorrection:
    """Adds the animator's correction to splatted bands (see frame_painter.Correction)."""

    def __init__(self, animator: Animator, source: LoopSource) -> None:
        self.animator = animator.eval()
        self.source = source
        self.stride = animator.config.stride
        self.device = next(animator.parameters()).device
        self.weighted = self._encode()

    @property
    def halo(self) -> int:
        return self.animator.halo

    def correct(
        self,
        colour: Floats,
        moving: Floats,
        band: Box,
        fields: tuple[Floats, Floats],
        alpha: float,
        inner: Box,
    ) -> None:
        """Add the correction to the rows of `inner` in a band's colours, in place."""
        landed = self._landed(band, fields, alpha)
        fade = 255.0 * (4.0 * alpha * (1.0 - alpha)) ** 0.5
        whole = replace(band, top=0, left=0, bottom=band.height, right=band.width)
        rows = replace(whole, top=inner.top - band.top, bottom=inner.bottom - band.top)
        corrections = []
        for run in _moving_runs(moving, rows):
            seen = run.grown(self.halo, whole)
            correction = self._decode(colour[seen.slices], landed, moving[seen.slices], seen, alpha)
            top, left = run.top - seen.top, run.left - seen.left
            corrections.append((run, correction[top : top + run.height, left : left + run.width]))
        # Only now, since neighbouring runs look at each other's uncorrected colours.
        for run, correction in corrections:
            share = np.float32(fade) * moving[run.slices]
            colour[run.slices] += share[..., None] * correction

    @torch.inference_mode()
    def _encode(self) -> Floats:
        """(h, w, C + 1): features times weight, and the weight exp(Z) · moving share, of the window."""
        stride, source = self.stride, self.source
        height, width = (-(-size // stride) for size in source.shape)
        weighted = np.empty((height, width, self.animator.config.features + 1), np.float32)
        rows = max(ENCODER_PIXELS // width, 4 * ENCODER_REACH)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first, last = max(top - ENCODER_REACH, 0), min(bottom + ENCODER_REACH, height)
            photo, moving = source.strip(first * stride, last * stride)
            below, right = last * stride - first * stride - len(moving), -moving.shape[1] % stride
            photo = np.pad(photo, ((0, below), (0, right), (0, 0)), mode="edge")
            moving = np.pad(moving, ((0, below), (0, right)), mode="edge")
            share = _shrunk(moving, (width, last - first))
            features, importance = self.animator.encoder(
                self._tensor(photo.astype(np.float32) / np.float32(255.0)),
                self._tensor(moving[..., None]),
            )
            features, importance = features.cpu(), importance.cpu()
            kept = slice(top - first, bottom - first)
            weight = np.exp(importance[0, 0, kept].numpy()) * share[kept]
            weighted[top:bottom, :, -1] = weight
            weighted[top:bottom, :, :-1] = features[0, :, kept].permute(1, 2, 0).numpy() * weight[..., None]
        return weighted

    def _landed(self, band: Box, fields: tuple[Floats, Floats], alpha: float) -> Floats:
        """Splatted features of a band: (h / stride, w / stride, C), zero where nothing landed."""
        stride, source = self.stride, self.source
        height, width = -(-band.height // stride), -(-band.width // stride)
        sums = np.zeros((height + 2, width + 2, self.weighted.shape[2]), np.float32)
        offset = (
            (source.offset[0] + source.box.top - band.top) // stride,
            (source.offset[1] + source.box.left - band.left) // stride,
        )
        for field, share in zip(fields, (1.0 - alpha, alpha), strict=True):
            splat_features(
                self.weighted, field, stride / source.step, source.step / stride, share, offset, sums
            )
        inner = sums[1:-1, 1:-1]
        weight = inner[..., -1:]
        return np.divide(inner[..., :-1], weight, out=np.zeros_like(inner[..., :-1]), where=weight > 0)

    @torch.inference_mode()
    def _decode(self, colour: Floats, landed: Floats, moving: Floats, seen: Box, alpha: float) -> Floats:
        """The correction (h, w, 3) of a region, in the network's units."""
        stride = self.stride
        multiple = 2 * stride
        below, right = -seen.height % multiple, -seen.width % multiple
        colour = np.pad(colour, ((0, below), (0, right), (0, 0)), mode="edge")
        moving = np.pad(moving, ((0, below), (0, right)), mode="edge")
        height, width = colour.shape[0] // stride, colour.shape[1] // stride
        features = landed[seen.top // stride :, seen.left // stride :][:height, :width]
        missing = height - features.shape[0], width - features.shape[1]
        features = np.pad(features, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        share = _shrunk(moving, (width, height))[..., None]
        correction = self.animator.decoder(
            self._tensor(colour / np.float32(255.0)),
            self._tensor(features * share),
            self._tensor(share),
            torch.tensor([alpha], dtype=torch.float32, device=self.device),
        )
        return np.asarray(correction[0].permute(1, 2, 0).cpu().numpy())[: seen.height, : seen.width]

    def _tensor(self, plane: Floats) -> Tensor:
        """(h, w, C) to (1, C, h, w) in memory order h, w, C, in which convolutions are fastest."""
        tensor = torch.from_numpy(np.ascontiguousarray(plane)).to(self.device).permute(2, 0, 1)[None]
        return tensor.contiguous(memory_format=torch.channels_last)


def _shrunk(plane: Floats, size: tuple[int, int]) -> Floats:
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


def _moving_runs(moving: Floats, rows: Box) -> Iterator[Box]:
    """Runs of columns of a band in which anything moves, aligned to RUN."""
    busy = moving[rows.top : rows.bottom].max(axis=0) > 0
    flags = [bool(busy[left : left + RUN].any()) for left in range(0, rows.width, RUN)]
    start = None
    for index, flag in enumerate([*flags, False]):
        if start is not None and (not flag or index - start == LONGEST_RUN):
            yield replace(rows, left=start * RUN, right=min(index * RUN, rows.width))
            start = None
        if flag and start is None:
            start = index
