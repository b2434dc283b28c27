"""What each measure costs: milliseconds per evaluation, and per cent of the steps between two. ``make bench``, or

    python benchmarks/measures.py [--widths 10 50 100 200] [--repeats 9]

Depth 5, the default sizes of the sets, eval_every=10000, the native engine on one core. Each repeat times an evaluation
with the measure and one without it, one after the other, and some steps of the same network: the figures are medians of
their differences and quotients, so that a drift of the machine hits all alike.
"""

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from fractal_ifs.config.compose import compose
from fractal_ifs.config.measures import NAMES
from fractal_ifs.engines.native import NativeEngine
from fractal_ifs.measures.take import take
from fractal_ifs.runs.run import Run

SECONDS = 0.1  # of steps that are timed at once, about


def timed(call: Any) -> float:
    """The processor's seconds of a call, which others on the machine take less from than from its wall time."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


def costs(width: int, repeats: int) -> dict[str, tuple[float, float]]:
    """For each measure the milliseconds of an evaluation, and their share of the steps between two."""
    config = compose(width=width, logger="none", engine="native", data__val_size=5000, measures=[])
    engine, run = NativeEngine(1), Run(config, None)
    configs = {name: replace(config, measures=(name,)) for name in NAMES}

    def steps(count: int) -> float:
        return timed(lambda: engine.advance([run], [count], []))

    def evaluation(asked: Any) -> float:
        run.config = asked
        return timed(lambda: take([run], engine))

    count = max(10, round(100 * SECONDS / steps(100)))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    for _ in range(repeats):
        for name, asked in configs.items():
            between = steps(count) / count * config.eval_every
            more = evaluation(asked) - evaluation(config)
            found[name].append((1e3 * more, more / between))
    return {
        name: (statistics.median(ms for ms, _ in each), statistics.median(s for _, s in each))
        for name, each in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = {width: costs(width, arguments.repeats) for width in arguments.widths}
    print("| measure | " + " | ".join(f"width {width}" for width in table) + " |")
    print("|---|" + "---|" * len(table))
    for name in NAMES:
        cells = [f"{found[name][0]:.2g} ms, {found[name][1]:.2%}" for found in table.values()]
        print(f"| `{name}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
