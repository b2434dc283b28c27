"""Asks MKL, which multiplies matrices for torch on x86, for bits that don't depend on where in memory a matrix lies.

Otherwise a run's bits would depend on its place in a stack, and so on the runs that train beside it. MKL reads the
variable at the first product in a process, and worker processes inherit it. So ``fractal_ifs/__init__.py`` asks: every
door and every worker, of whichever launcher, passes there.
"""

import os
import re

VARIABLE = "MKL_CBWR"


def ask_for_equal_bits() -> None:
    """Set MKL_CBWR to AUTO,STRICT. A user's own AVX2 or AVX512 stays, and becomes strict.

    Any other value is replaced: MKL has a strict mode of these alone.
    """
    own = re.fullmatch(r"(?:BRANCH=)?(AVX2|AVX512\w*)(?:,STRICT)?", os.environ.get(VARIABLE, ""))
    os.environ[VARIABLE] = f"{own[1] if own else 'AUTO'},STRICT"
