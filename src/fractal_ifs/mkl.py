"""Asks MKL, which multiplies matrices for torch on x86, for bits that don't depend on where in memory a matrix lies.

Otherwise a run's bits would depend on its place in a stack, and so on the runs that train beside it. MKL reads the
variable once, at the first product in a process. So it is set for one product alone: other programs, in this process
or started by it, find their environment as it was.
"""

import os
from functools import cache

VARIABLE, EQUAL_BITS = "MKL_CBWR", "AUTO,STRICT"


@cache
def ask_for_equal_bits() -> None:
    """To be called before this package multiplies for the first time in a process. A user's own MKL_CBWR stays.

    In vain where others have multiplied already: ``runs.kernels`` finds out.
    """
    import torch  # here: what calls this before a user's code must not wait for torch until then

    before = os.environ.get(VARIABLE)
    if before or not torch.backends.mkl.is_available():
        return
    os.environ[VARIABLE] = EQUAL_BITS
    try:
        one = torch.ones(1, 1, dtype=torch.float64, device="cpu")  # which autocast leaves alone
        _ = one @ one
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
