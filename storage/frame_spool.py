"""Frames parked on disk, for what has to look at them more than once without holding them in memory."""

import tempfile
from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["FrameSpool"]


class FrameSpool:
    """All frames of one loop in an unnamed temporary file; iterate as often as needed, inside `with`."""

    def __init__(self, frames: Iterable[NDArray[np.uint8]]) -> None:
        self._file = tempfile.TemporaryFile(prefix="stillstream-")
        self._shape: tuple[int, ...] = ()
        self._count = 0
        try:
            for frame in frames:
                self._shape = frame.shape
                self._file.write(np.ascontiguousarray(frame).data)
                self._count += 1
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        size = int(np.prod(self._shape))
        for index in range(self._count):
            self._file.seek(index * size)
            yield np.frombuffer(self._file.read(size), np.uint8).reshape(self._shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
