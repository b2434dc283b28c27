"""How wide and deep the networks of Theorem 1 and Corollary 1 are: arithmetic that needs no torch."""

from __future__ import annotations

from fractal_ifs import fractals  # whose names are imported when they are used
from fractal_ifs.errors import ConfigError

LARGEST_WIDTH = 4096  # a layer of this width has 16.8 million weights
LARGEST_CHECKED = 600  # the width from which a million points in float64 take minutes


def printed_width(ifs: fractals.CubeIFS, s: int = 1) -> int:
    """The width 5 d r^s of Corollary 1; with s = 1 that of Theorem 1."""
    return 5 * ifs.d * ifs.r**s


def built_depth(ifs: fractals.CubeIFS, n: int, s: int) -> int:
    """Their depth, the readout counted; `corollary1_network` says how it compares with the printed one."""
    return 3 if ifs.r == 1 else 2 * -(-n // s) + 1 - (ifs.d == 1 and n % s > 0)


def check_width(ifs: fractals.CubeIFS, s: int, key: str | None = None) -> None:
    """Raises ConfigError for blocks whose layers would not fit into memory. ``key`` is what sets s, with its value."""
    if fractals.built_width(ifs, s) > LARGEST_WIDTH:
        printed = f"5 d r{f'^{s}' if s > 1 else ''} = {printed_width(ifs, s)}"
        raise ConfigError(
            f"{key or f'fractal={ifs.name}'}: width {printed} is too wide to build; must be <= {LARGEST_WIDTH}"
        )


def split(n: int, s: int) -> list[int]:
    """How many levels each block folds: s as often as it fits, then the rest. Raises ConfigError unless 1 <= s <= n."""
    if not 1 <= s <= n:
        raise ConfigError(f"s={s}: must be a whole number in 1..{n} (s <= n)")
    return [s] * (n // s) + ([n % s] if n % s else [])
