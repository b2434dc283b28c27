"""Fractals, approximation curves and their distributions (Section 2 of the paper): a library on numpy, scipy, torch."""

import lazy_loader  # pyright: ignore[reportMissingTypeStubs]

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # pyright: ignore[reportUnknownVariableType]
