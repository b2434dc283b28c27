"""Other Hydra applications in the same environment: nothing of theirs changes, whether they use this package or not."""

import os
import subprocess
import sys
from pathlib import Path

import hydra
import omegaconf
import pytest

APPLICATION = """
import os
import sys
from dataclasses import dataclass
from typing import Any
import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

@dataclass
class Schema:
    data: int = 1
    model: float = 1.0
    curve: Any = None

ConfigStore.instance().store(name="schema", node=Schema)

@hydra.main(config_path=None, config_name="schema", VERSION)
def main(config):
    print(OmegaConf.to_yaml(config), hydra.core.hydra_config.HydraConfig.get().job.override_dirname)
    print(sorted(name for name in ConfigStore.instance().repo if name != "hydra" and not name.startswith("_")))
    if hydra.core.hydra_config.HydraConfig.get().mode.name == "RUN":
        print("fractal_ifs" in sys.modules, "torch" in sys.modules, os.environ == ENVIRONMENT)

ENVIRONMENT = dict(os.environ)
main()
"""

# An application in whose process this package is used, between two sessions of its own.
COMPOSER = """
import logging, os, signal, sys
import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobRuntime
from omegaconf import OmegaConf

OmegaConf.NEW_RESOLVER("sweep_name", lambda: "theirs")
ConfigStore.instance().store(name="schema", node={"data": 1, "name": "${sweep_name:}"})

def state():
    session = GlobalHydra.instance()
    parse = OverridesParser.__dict__["parse_overrides"]
    return [session.hydra, hydra.version.getbase(), parse, sorted(ConfigStore.instance().repo),
            JobRuntime.instance().get("name"), OmegaConf.has_resolver("fractal_ifs.sweep_name"),
            os.environ.get("MKL_CBWR"), os.environ.get("WANDB_SILENT"),
            [sys.stdin, sys.stdout, sys.stderr, logging.raiseExceptions],
            {kind: signal.getsignal(kind) for kind in signal.valid_signals()}]

with initialize_config_dir(FOLDER, job_name="theirs", VERSION):
    before = state()
    import fractal_ifs
    USE
    assert state() == before, (state(), before)
    print(OmegaConf.to_container(compose("schema", overrides=["data=7"]), resolve=True))
print(state()[0], hydra.version.getbase())
"""

USES = {
    "run": "fractal_ifs.run(fractal='vicsek', curve=1, width=4, depth=1, steps=10, eval_every=10, batch_size=10,\n"
    "        data__train_size=50, data__test_size=20)",
    "logged": "os.environ['WANDB_MODE'] = 'offline'\n"
    "    fractal_ifs.run('.', fractal='vicsek', curve=1, width=4, depth=1, steps=10, eval_every=10, batch_size=10,\n"
    "        data__train_size=50, data__test_size=20, logger='wandb')",
    "sweep": "fractal_ifs.sweep('swept', fractal='vicsek', curve=[1, 4], width=4, depth=1, steps=10, eval_every=10,\n"
    "        batch_size=10, data__train_size=50, data__test_size=20)",
    "interrupted": "from fractal_ifs.training.rounds import SweepRounds\n"
    "    SweepRounds._keep = lambda _: os.kill(os.getpid(), signal.SIGINT)\n"
    "    try: assert not fractal_ifs.run(fractal='vicsek', curve=1, width=4, depth=1, steps=10**8,\n"
    "        data__train_size=100, data__test_size=20)\n"
    "    except KeyboardInterrupt: pass",
    "refused": "try: fractal_ifs.run(widht=3)\n    except fractal_ifs.ConfigError as error: print(error)",
    "threads": "from concurrent.futures import ThreadPoolExecutor\n"
    "    from fractal_ifs.config.compose import compose as ours\n"
    "    with ThreadPoolExecutor(4) as pool:\n"
    "        made = list(pool.map(lambda seed: ours(seed=seed), range(12)))\n"
    "    assert [(each.seed, each.sweep) for each in made] == [(seed, 'default') for seed in range(12)]",
    "others": "from concurrent.futures import ThreadPoolExecutor\n"
    "    from fractal_ifs.config.session import borrowed\n"
    "    words = ['data=7', 'curve=[1,2]']\n"
    "    def read(): return [word.value() for word in OverridesParser.create().parse_overrides(words)]\n"
    "    with borrowed(), ThreadPoolExecutor(1) as pool: assert pool.submit(read).result() == [7, [1, 2]]\n"
    "    with borrowed():\n"
    "        try: raise SystemExit(read())\n"
    "        except fractal_ifs.ConfigError: pass",
    "plot": "from fractal_ifs.plot import write_pictures\n"
    "    write_pictures(['fractal=vicsek', 'curve=1,4', 'points=50', 'dpi=20', 'formats=png'])",
}


def ran(folder: Path, program: str, *arguments: str) -> str:
    """What a program prints, in a process of its own, with this package beside it."""
    version = 'version_base="1.3"' if hydra.__version__.startswith("1.3") else ""
    new = "register_new_resolver" if omegaconf.__version__.startswith("2.3") else "register_resolver"
    (folder / "application.py").write_text(program.replace("VERSION", version).replace("NEW_RESOLVER", new))
    done = subprocess.run(
        [sys.executable, "-W", "error", "application.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"HYDRA_FULL_ERROR": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_application_reads_its_own_words(tmp_path):
    """Its keys have names that are groups here, and its ConfigStore has a node called schema."""
    out = ran(tmp_path, APPLICATION, "data=7", "model=0.5", "curve=4")
    assert out.startswith("data: 7\nmodel: 0.5\ncurve: 4\n curve=4,data=7,model=0.5\n")
    assert out.splitlines()[-2] == "['schema.yaml']"


def test_an_application_keeps_its_environment_and_imports_nothing_heavy(tmp_path):
    """Although Hydra imports our plugins in its process."""
    assert ran(tmp_path, APPLICATION).splitlines()[-1] == "True False True"


def test_a_sweep_of_an_application_is_hydras_own(tmp_path):
    out = ran(tmp_path, APPLICATION, "-m", "data=5,7", "hydra.sweep.dir=swept")
    assert [line for line in out.splitlines() if line.startswith("data: ")] == ["data: 5", "data: 7"]
    assert {path.name for path in (tmp_path / "swept").iterdir()} == {"0", "1", "multirun.yaml"}


LONG = ("run", "sweep", "threads", "plot")  # of what they use the others use something too


@pytest.mark.parametrize("use", [pytest.param(use, marks=pytest.mark.slow) if use in LONG else use for use in USES])
def test_an_application_uses_this_package_in_a_session_of_its_own(tmp_path, use):
    program = COMPOSER.replace("FOLDER", repr(str(tmp_path))).replace("USE", USES[use])
    lines = ran(tmp_path, program).splitlines()
    assert lines[-2:-1] == ["{'data': 7, 'name': 'theirs'}"]
    assert lines[-1].startswith("None ")
