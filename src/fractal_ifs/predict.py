"""``python -m fractal_ifs.predict``: the command of ``predictions``, by the name of its verb.

``fractal_ifs.predict`` is a function too. Whoever imports this module gets that, lest it hides the function.
"""

import sys

from fractal_ifs.predictions import main
from fractal_ifs.streams import command

if __name__ == "__main__":
    command(main)
else:
    from fractal_ifs.runs.predict import predict

    sys.modules[__name__] = predict  # pyright: ignore[reportArgumentType]
