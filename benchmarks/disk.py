"""What waiting for the disk costs a run:

    python benchmarks/disk.py [DIRECTORY] [--times 100] [--widths 10 100 400]

Milliseconds of a checkpoint (one file is waited for), and of what a run writes at its end (the checkpoint, the record,
and their directory), with and without waiting. Medians over ``--times``, in turn, in a new directory below DIRECTORY.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

from fractal_ifs.config.compose import compose
from fractal_ifs.runs.records import Status
from fractal_ifs.runs.run import Run


def milliseconds(run: Run, status: Status, waits: bool) -> float:
    """Of one ``save``."""
    run.status = status
    with contextlib.nullcontext() if waits else mock.patch("os.fsync"):
        begun = time.perf_counter()
        run.save()
        return 1e3 * (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path())
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--widths", type=int, nargs="+", default=[10, 100, 400])
    given = parser.parse_args()
    print("| width | a checkpoint | without waiting | the end of a run | without waiting |\n|---|---|---|---|---|")
    for width in given.widths:
        config = compose(width=width, data__train_size=1000, data__test_size=1000, logger="none")
        with tempfile.TemporaryDirectory(dir=given.directory) as folder:
            run = Run(config, Path(folder))
            run.evaluated(0.5, 1.0)
            kinds = [(status, waits) for status in (Status.RUNNING, Status.FINISHED) for waits in (True, False)]
            found = {kind: [milliseconds(run, *kind)] for kind in kinds}  # the first is not counted
            for _ in range(given.times):
                for kind in kinds:
                    found[kind].append(milliseconds(run, *kind))
        medians = (f"{statistics.median(found[kind][1:]):.2f} ms" for kind in kinds)
        print(f"| {width} | {' | '.join(medians)} |", flush=True)


if __name__ == "__main__":
    main()
