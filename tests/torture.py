"""``make torture``: commands of every engine and kind, struck at any file operation, must end as if undisturbed.

    python tests/torture.py [--strikes 1000] [--seed 7] [--only 23]

A case is a command and its strikes, all drawn from the seed. A strike hits the driver, a worker or W&B's service, at
the N-th file operation of one of them, or at a moment: it is killed before, in the middle of or after the operation,
which tears the file; the disk is full from then on; the operation fails; the power is lost, with all that was not on
the disk; a signal arrives. Then the same command is given again, and perhaps struck again. In the end weights, moments,
histories, records and tables must be those of the command that nobody disturbed, bit for bit. No finished result is
ever lost or written again, no command hangs or ends with a traceback or another exit status than docs/cluster.md says.

The seed replays the strikes, and ``--only`` a case alone. Most commands are forks of a process that has imported
everything (``forked.py``); ``--real`` is the share that starts Python anew.
"""

import argparse
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults import build
from forked import Server
from struck import Command, Tally, case, straced
from test_images import binary, parts

SIZES = ["eval_every=100", "data.train_size=1500", "data.test_size=300"]
ENVIRONMENT = {"FRACTAL_IFS_CHECKPOINT_SECONDS": "0", "PYTHONUNBUFFERED": "1"}
KINDS = {  # of commands: the words that make one, and how often it is drawn
    "single": ([], 3),
    "sweep": (["-m", "curve=1,4", "sweep=s"], 3),
    "sweep that joins lengths": (["-m", "steps=300,500", "curve=1,6", "sweep=s"], 1),
    "workers": (["-m", "curve=1,4", "lr=1e-3,2e-3", "sweep=s", "engine=torch", "workers=2"], 3),
    "one worker": (["-m", "curve=1,4", "lr=1e-3,2e-3", "sweep=s", "engine=torch", "workers=1"], 1),
    "layerwise": (["training=layerwise", "depth=2", "steps=300"], 1),
    "sweep layerwise": (["-m", "training=layerwise", "curve=1,4", "depth=2", "steps=200", "sweep=s"], 1),
    "diverging": (["-m", "lr=1e-3,1e30", "loss=squared", "sweep=s"], 1),
    "stopping": (["-m", "curve=1,4", "stop.patience=1", "sweep=s"], 1),
    "halving": (["-m", "curve=1,4", "lr=1e-4,1e-3,1e-2", "sweep=s", "hydra/sweeper=halving"], 1),
    "one by one": (["-m", "hydra/launcher=basic", "curve=1,4", "sweep=s"], 1),
    "images": (["data=cifar10", "model=cnn"], 1),
    "sweep of images": (["-m", "data=cifar10", "model=cnn", "lr=1e-3,2e-3", "sweep=s"], 1),
    "two devices": (["trainer=ddp", "trainer.accelerator=cpu", "engine=torch", "batch_size=32"], 1),
}
SLURM = ["-m", "curve=1,4", "lr=1e-3,2e-3", "sweep=s", "hydra/launcher=slurm"]
SLURM += ["hydra.launcher.cpus=1", "hydra.launcher.tasks=2", "hydra.launcher.time=30"]
IMAGES = ["data.verify=false", "data.train_size=60", "data.test_size=10", "batch_size=12", "steps=20", "eval_every=5"]


def draw(chance: random.Random, images: Path, slurm: bool) -> list[str]:
    """The words of a command: of a random kind, or under Slurm."""
    kind = chance.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    words = [*SLURM] if slurm else [*KINDS[kind][0]]
    given = {word.split("=")[0] for word in words}
    logger = chance.choices(["none", "csv", "wandb"], [3, 3, 1])[0]
    drawn = [*SIZES, f"width={chance.randint(1, 24)}", f"depth={chance.randint(1, 4)}"]
    drawn += [f"batch_size={chance.randint(1, 100)}", f"steps={chance.choice([400, 600])}", f"logger={logger}"]
    drawn += [f"loss={chance.choice(['hinge', 'logistic', 'squared'])}"]
    drawn += [f"engine={chance.choice(['auto', 'auto', 'torch'])}"]
    drawn += [f"optimizer={chance.choice(['adam', 'adam', 'sgd'])}"]
    if chance.random() < 0.3:
        drawn += [f"trainer.precision={chance.choice(['64-true', 'bf16-mixed'])}"]
    if chance.random() < 0.3 and kind != "halving":  # which refuses a table
        words += ["kept=kept.csv"]
    if "images" in kind and not slurm:
        drawn = [*IMAGES, f"data.dir={images}", f"width={chance.randint(1, 6)}", "depth=1", f"logger={logger}"]
    return words + [word for word in drawn if word.split("=")[0] not in given]


def real(words: Sequence[str], cwd: Path, output: Path, environment: dict[str, str]) -> subprocess.Popen:
    """The command as a user gives it."""
    with open(output, "ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "fractal_ifs.train", *words],
            cwd=cwd,
            env={**os.environ, **ENVIRONMENT, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


class Torture:
    """Cases, by their numbers, in a directory of their own.

    Args:
        commands: how many different commands there are; each is first given once and not disturbed.
        share: of the cases whose commands start Python anew.
        slurm: all commands are under Slurm.
    """

    def __init__(self, root: Path, seed: int, commands: int, share: float, slurm: bool = False):
        self.root, self.seed, self.commands, self.share, self.slurm = root, seed, commands, share, slurm
        self.tally, self.strace = Tally(), straced()
        self.library = build(root)
        self.server = Server(self.library, **ENVIRONMENT)
        self.undisturbed: dict[int, Command] = {}
        images = root / "images"
        images.mkdir()
        for name, (x, y) in parts(12).items():
            (images / f"{name}.bin").write_bytes(binary(x, y))

    def case(self, number: int) -> None:
        """Strike at a command until it comes to its end, say what happened, and add it up in ``tally``."""
        chance = random.Random(f"{self.seed} {number}")
        which = chance.randrange(self.commands)
        anew = chance.random() < self.share or self.slurm
        undisturbed = self._undisturbed(which)
        print(f"case {number}, seed {self.seed}{', Python anew' if anew else ''}: {' '.join(undisturbed.words)}")
        there = self.root / f"case{number}"
        command = self._command(undisturbed.words, there, real if anew else self.server.start)
        case(chance, undisturbed, command, self.tally, self.strace, lambda text: print(f"  {text}", flush=True))
        if not command.wrong:
            shutil.rmtree(there)

    def _undisturbed(self, which: int) -> Command:
        if which not in self.undisturbed:
            words = draw(random.Random(f"{self.seed} command {which}"), self.root / "images", self.slurm)
            start = real if self.slurm else self.server.start
            command = self._command(words, self.root / f"undisturbed{which}", start)
            command.give()
            print(f"undisturbed in {command.seconds:.1f} s: {' '.join(words)}", flush=True)
            for text in command.wrong:
                self.tally.wrong[text.split(":")[0]] += 1
                print(f"  WRONG undisturbed: {' '.join(words)}: {text}")
            self.undisturbed[which] = command
        return self.undisturbed[which]

    def _command(self, words: Sequence[str], there: Path, start: Any) -> Command:
        there.mkdir()
        return Command(words, there / "given", there, self.library, start)

    def until(self, strikes: int, first: int = 0) -> None:
        """Cases, from number ``first`` on, until there are so many strikes."""
        for number in itertools.count(first):
            if self.tally.strikes.total() >= strikes:
                break
            self.case(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strikes", type=int, default=1000, help="at least so many")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", type=int, help="this case alone")
    parser.add_argument("--first", type=int, default=0, help="go on with this case")
    parser.add_argument("--commands", type=int, default=60, help="how many different commands")
    parser.add_argument("--real", type=float, default=0.1, help="the share of cases whose commands start Python anew")
    parser.add_argument("--slurm", action="store_true", help="all commands under Slurm (see tests/slurm/start.sh)")
    parser.add_argument("--keep", type=Path, help="a directory for all files; what is wrong stays there")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and so by the commands
    with tempfile.TemporaryDirectory() as root:
        if given.keep:
            given.keep.mkdir(parents=True)
        torture = Torture(given.keep or Path(root), given.seed, given.commands, given.real, given.slurm)
        if given.only is None:
            torture.until(given.strikes, given.first)
        else:
            torture.case(given.only)
        torture.server.close()
    print(f"{torture.tally}; {torture.server.computed:.0f} s of a processor in forked commands")
    sys.exit(bool(torture.tally.wrong))


if __name__ == "__main__":
    main()
