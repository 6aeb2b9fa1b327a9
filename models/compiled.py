"""How this floor compiles its array loops: one place for numba's switches.

Kernels run without the interpreter's lock, so callers thread over frames; each kernel itself is serial,
which is what makes a result independent of the number of threads.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

__all__ = ["add_four", "compiled"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a loop over numpy arrays to machine code on its first call; the code is cached on disk."""
    # No reassociation: sums keep their written order, so results do not depend on the vector width.
    return cast(F, numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz"})(function))


@intrinsic
def _add_four(_typing: Any, target: Any, at: Any, source: Any, start: Any, factor: Any) -> Any:
    flat = types.Array(types.float32, 1, "C")
    if target != flat or source != flat:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        four = ir.VectorType(ir.FloatType(), 4)

        def place(number: int) -> Any:
            array = context.make_array(signature.args[number])(context, builder, arguments[number])
            return builder.bitcast(builder.gep(array.data, [arguments[number + 1]]), four.as_pointer())

        index = ir.IntType(32)
        undefined = ir.Constant(four, ir.Undefined)
        first = builder.insert_element(undefined, arguments[4], index(0))
        spread = builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(index, 4), [0, 0, 0, 0]))
        to, of = place(0), place(2)
        product = builder.fmul(builder.load(of, align=4), spread, flags=("contract",))
        builder.store(builder.fadd(builder.load(to, align=4), product, flags=("contract",)), to, align=4)
        return context.get_dummy_value()

    return types.void(flat, types.int64, flat, types.int64, types.float32), generate


# add_four(target, at, source, start, factor): target[at : at + 4] += factor * source[start : start + 4]
# as one vector, which the compiler does not make of four lines. Inside compiled loops only; both arrays are
# flat float32, and nothing checks that the places lie inside.
add_four = cast(Callable[..., None], _add_four)
