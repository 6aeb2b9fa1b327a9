"""How this floor compiles its array loops: one place for numba's switches.

Kernels run without the interpreter's lock, so callers thread over frames; each kernel itself is serial,
which is what makes a result independent of the number of threads.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a loop over numpy arrays to machine code on its first call; the code is cached on disk."""
    # No reassociation: sums keep their written order, so results do not depend on the vector width.
    return cast(F, numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz"})(function))
