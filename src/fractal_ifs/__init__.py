"""fractal_ifs: when does depth help a network that is trained by gradient descent?

from fractal_ifs import FractalDistribution, run, load
x, y, level = FractalDistribution("vicsek", curve=4).sample(1000)
record, model = run(fractal="vicsek", curve=1, width=20, steps=20_000)
record, history, config, model = load("multirun/table2/...")
"""

import lazy_loader

# What __init__.pyi names is imported when first used: `--help` and a refused config don't wait for torch and Lightning.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
