"""``make torture``: a sweep, on both engines, killed at random again and again, must end as if nothing had happened.

Each time something is killed at a random moment: the driver (SIGKILL, SIGTERM or SIGINT) or one of its worker processes
(SIGKILL); then the same command is given again. In the end the table and all weights, moments and histories must be
those of the sweep that nobody disturbed, bit for bit. The single run's command has its share of the kills.
"""

import argparse
import contextlib
import itertools
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from killed import SMALL, children, kill, results, start, table, untouched, wait_for

EVERY = 200  # steps between two checkpoints: eval_every of SMALL
SWEEP = ["-m", "fractal=vicsek", "curve=1,4", "lr=1e-3,2e-3", *SMALL, "sweep=s", "workers=2"]
RUN = ["fractal=vicsek", "curve=4", *SMALL, "workers=1"]
CASES = {  # and the share of the kills that each has; only the torch engine's sweeps have worker processes
    "sweep, native engine": (4, [*SWEEP, "width=20", "steps=60000"]),
    "sweep, torch engine": (8, [*SWEEP, "width=10", "steps=6000", "engine=torch"]),
    "run, native engine": (2, [*RUN, "width=20", "steps=120000"]),
    "run, torch engine": (2, [*RUN, "width=10", "steps=6000", "engine=torch"]),
}
DRIVER = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}


def strike(directory: Path, arguments: list[str], chance: random.Random, lasting: float) -> str | None:
    """Give the command, kill something at a random moment; returns what, or None where the command came to its end.

    Most moments are within the ``lasting`` seconds from where a run begins to train; the others, before any does.
    """
    logs = marks(directory)
    process = start(directory, *arguments)
    if chance.random() < 0.8:
        wait_for(lambda: marks(directory) != logs, process)
        time.sleep(chance.uniform(0, lasting))
    else:
        time.sleep(chance.uniform(0, 3))
    workers = children(process.pid)
    if process.poll() is not None:
        text, _ = process.communicate()
        assert process.returncode == 0, text
        return None
    if workers and chance.random() < 0.7:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)
        process.communicate(timeout=300)  # the other worker ends its jobs
        return "worker SIGKILL"
    kind = chance.choice(["SIGKILL", "SIGKILL", *DRIVER])
    if kind == "SIGKILL":
        kill(process)
    else:
        process.send_signal(DRIVER[kind])
        process.communicate(timeout=60)
    return f"driver {kind}"


def torture(name: str, kills: int, chance: random.Random, root: Path) -> tuple[Counter, int, int]:
    """Kill at least so often; returns what was killed, how often a run lost steps, and how many results were lost."""
    straight = root / name / "straight"
    straight.mkdir(parents=True)
    _, arguments = CASES[name]
    process = start(straight, *arguments)
    wait_for(lambda: marks(straight), process)
    begun = time.monotonic()
    text, _ = process.communicate()
    assert process.returncode == 0, text
    lasting = time.monotonic() - begun
    counts: Counter = Counter()
    again = lost = rounds = 0
    while counts.total() < kills:
        rounds += 1
        killed = root / name / f"killed{rounds}"
        killed.mkdir()
        finished: dict[str, int] = {}
        while (kind := strike(killed, arguments, chance, lasting)) is not None:
            counts[kind] += 1
            now = untouched(killed)
            lost += sum(now.get(path) != at for path, at in finished.items())
            finished = {path: at for path, at in now.items() if '"status": "finished"' in Path(path).read_text()}
            print(f"{name}: {counts.total()} kills, {len(finished)} runs finished", file=sys.stderr, flush=True)
        found, expected = results(killed), results(straight)
        assert found.keys() == expected.keys()
        for run in expected:
            assert found[run][0] == expected[run][0], f"{run}: other weights"
            assert found[run] == expected[run], f"{run}: another history or record"
        if (straight / "multirun").exists():
            assert table(killed / "multirun/s") == table(straight / "multirun/s")
        again += sum(stints_cut_short(path.read_text()) for path in killed.rglob("train.log"))
    return counts, again, lost


def marks(directory: Path) -> dict[Path, int]:
    """Something that changes as runs are begun."""
    return {path: path.stat().st_size for path in directory.rglob("train.log")}


def stints_cut_short(log: str) -> int:
    """How often a run began again without having been able to say where it ended: it lost fewer than EVERY steps."""
    words = re.findall(r"training from step|at step", log)
    return sum(pair == ("training from step",) * 2 for pair in itertools.pairwise(words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="at least so many, dealt out to sweeps and runs")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and so by the commands
    counts: Counter = Counter()
    again = lost = 0
    with tempfile.TemporaryDirectory() as root:
        shares = sum(share for share, _ in CASES.values())
        for number, (name, (share, _)) in enumerate(CASES.items()):
            found = torture(
                name, -(-given.kills * share // shares), random.Random(1000 * given.seed + number), Path(root)
            )
            counts, again, lost = counts + found[0], again + found[1], lost + found[2]
    print(f"{counts.total()} kills: {', '.join(f'{count} of {kind}' for kind, count in counts.most_common())}")
    print(f"fewer than {EVERY} steps recomputed {again} times: at most {again * (EVERY - 1):,} steps")
    print(f"{lost} results lost; table, weights, moments and histories are those of the undisturbed runs, bit for bit")
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
