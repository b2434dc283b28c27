"""``make torture``: sweeps and runs, killed at random again and again, must end as if nothing had happened.

Each is of a network, a precision and an engine drawn at random. Each time something is killed at a random moment: the
driver (SIGKILL, SIGTERM or SIGINT) or one of its worker processes (SIGKILL); then the same command is given again. In
the end the table and all weights, moments and histories must be those of the command that nobody disturbed, bit for
bit, although other runs trained beside each. ``--seed`` draws the same commands and kills again.
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
SECONDS = 6.0  # of training in an undisturbed command, roughly
DRIVER = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}


def draw(chance: random.Random) -> list[str]:
    """The words of a command: a sweep of four runs, half of which end early, or one run in four times."""
    sweep = chance.random() < 0.75
    width, depth, batch = chance.randint(1, 70), chance.randint(1, 5), chance.randint(1, 128)
    engine = chance.choice(["auto", "torch", "torch"])
    precision = chance.choice(["32-true", "32-true", "64-true", "bf16-mixed"])
    by_torch = engine == "torch" or precision != "32-true"
    work = 6.0 * width * (width + 1) * depth * batch * (4 if sweep else 1)  # of a step of all runs
    step = 5e-4 + work / 1e10 if by_torch else 2e-6 + work / 1e11  # seconds, roughly
    rounds = max(4, min(150, round(SECONDS / (EVERY * step + 0.03))))
    words = ["fractal=vicsek", *(word for word in SMALL if not word.startswith("depth=")), f"engine={engine}"]
    words += [f"width={width}", f"depth={depth}", f"batch_size={batch}", f"trainer.precision={precision}"]
    words += [f"loss={chance.choice(['hinge', 'logistic', 'squared'])}"]
    if not sweep:
        return [*words, "curve=4", f"steps={rounds * EVERY}", "workers=1"]
    return ["-m", *words, "curve=1,4", f"steps={rounds * EVERY},{rounds // 2 * EVERY}", "sweep=s"]


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


def torture(arguments: list[str], chance: random.Random, root: Path) -> tuple[Counter, int, int, list[str]]:
    """Give a command again until it comes to its end.

    Returns what was killed, how often a run lost steps, how many results were lost, and which runs have other bits than
    undisturbed.
    """
    straight, killed = root / "straight", root / "killed"
    straight.mkdir(parents=True)
    killed.mkdir()
    # Other workers put other runs side by side.
    one, other = (["workers=1"], ["workers=2"]) if arguments[0] == "-m" else ([], [])
    process = start(straight, *arguments, *one)
    wait_for(lambda: marks(straight), process)
    begun = time.monotonic()
    text, _ = process.communicate()
    assert process.returncode == 0, text
    lasting = time.monotonic() - begun
    counts: Counter = Counter()
    lost = 0
    finished: dict[str, int] = {}
    while (kind := strike(killed, [*arguments, *chance.choice([one, other])], chance, lasting)) is not None:
        counts[kind] += 1
        now = untouched(killed)
        lost += sum(now.get(path) != at for path, at in finished.items())
        finished = {path: at for path, at in now.items() if '"status": "finished"' in Path(path).read_text()}
    found, expected = results(killed), results(straight)
    assert found.keys() == expected.keys()
    others = [run for run in expected if found[run] != expected[run]]
    if not others and (straight / "multirun").exists():
        assert table(killed / "multirun/s") == table(straight / "multirun/s")
    again = sum(stints_cut_short(path.read_text()) for path in killed.rglob("train.log"))
    return counts, again, lost, others


def marks(directory: Path) -> dict[Path, int]:
    """Something that changes as runs are begun."""
    return {path: path.stat().st_size for path in directory.rglob("train.log")}


def stints_cut_short(log: str) -> int:
    """How often a run began again without having been able to say where it ended: it lost fewer than EVERY steps."""
    words = re.findall(r"training from step|at step", log)
    return sum(pair == ("training from step",) * 2 for pair in itertools.pairwise(words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="at least so many, of one command after the other")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    print(f"--seed {given.seed}", flush=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and so by the commands
    counts: Counter = Counter()
    again = lost = runs = 0
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as root:
        for number in itertools.count():
            chance = random.Random(f"{given.seed} {number}")
            arguments = draw(chance)
            found = torture(arguments, chance, Path(root, str(number)))
            counts, again, lost = counts + found[0], again + found[1], lost + found[2]
            wrong += [f"{run}: other bits: {' '.join(arguments)}" for run in found[3]]
            runs += 4 if arguments[0] == "-m" else 1
            print(f"{counts.total()} kills, {len(found[3])} runs with other bits: {' '.join(arguments)}", flush=True)
            if counts.total() >= given.kills:
                break
    print(f"{counts.total()} kills: {', '.join(f'{count} of {kind}' for kind, count in counts.most_common())}")
    print(f"fewer than {EVERY} steps recomputed {again} times: at most {again * (EVERY - 1):,} steps")
    print("\n".join(wrong) or f"{runs} runs: table, weights, moments and histories as if undisturbed, bit for bit")
    print(f"{lost} results lost")
    sys.exit(bool(lost or wrong))


if __name__ == "__main__":
    main()
