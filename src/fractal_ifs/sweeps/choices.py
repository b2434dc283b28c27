"""Keys of a choice in a grid over choices: ``optimizer=adam,sgd optimizer.momentum=.9``."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fractal_ifs.errors import counted, short

log = logging.getLogger(__name__)


def where_they_count(
    loader: ConfigLoader, master: DictConfig, jobs: Sequence[list[str]], of_file: Collection[str] = ()
) -> list[list[str]]:
    """The jobs without those keys of a swept group that another of its choices has, and theirs doesn't.

    Jobs that become the same are one. A key that none of the choices has stays in all, and is refused there.

    Args:
        master: the config of the whole sweep.
        jobs: the words of each job of the grid.
        of_file: words of the grid in an experiment's file. Where a command makes another choice than the file sweeps,
            keys that the file has for its own choices don't count either.
    """
    chosen: dict[str, set[str]] = {}  # of each group its choices, as words
    keys: dict[str, set[str]] = {}  # of each group its keys
    for word in {word for job in jobs for word in job}:
        name, _, _ = word.partition("=")
        group, _, key = name.partition(".")
        if name in master.hydra.runtime.choices:
            chosen.setdefault(name, set()).add(word)
        elif key and re.fullmatch(r"\w+", group):  # with a + a key is added to whatever there is
            keys.setdefault(group, set()).add(name)
    lacking: dict[str, set[str]] = {}  # of each choice, as a word, the keys that others of its group have
    for group in keys.keys() & chosen.keys():
        others = {word for word in of_file if word.startswith(f"{group}=")} - chosen[group]
        if len(chosen[group] | others) < 2:
            continue
        nodes = {word: _node(loader, master, word) for word in chosen[group] | others}
        for name in keys[group]:
            known = nodes.keys() if any(word.startswith(f"{name}=") for word in of_file) else chosen[group]
            without = [word for word in known if not _has(nodes[word], name.split(".")[1:])]
            for word in without if len(without) < len(known) else ():
                lacking.setdefault(word, set()).add(name)
    if not lacking:
        return list(jobs)
    left_out: dict[str, list[Sequence[str]]] = {}
    found: dict[tuple[str, ...], None] = {}
    for job in jobs:
        foreign = set[str]().union(*(lacking.get(word, ()) for word in job))
        kept = tuple(word for word in job if word.partition("=")[0] not in foreign)
        if kept not in found:
            for name in foreign.intersection(word.partition("=")[0] for word in job):
                left_out.setdefault(name, []).append(kept)
        found[kept] = None
    for name, without in sorted(left_out.items()):
        group = name.partition(".")[0]
        choices = sorted({word for job in without for word in job if word.startswith(f"{group}=")})
        log.info(
            "%s: no key of %s: %s", name, short(" or ".join(choices)), f"{counted(len(without), 'job')} without it"
        )
    return [list(job) for job in found]


def _node(loader: ConfigLoader, master: DictConfig, word: str) -> Any:
    """The keys of a choice as plain values. None where Hydra can't compose it, which is told where its job is."""
    group = word.partition("=")[0]
    try:
        return OmegaConf.to_container(loader.load_sweep_config(master, [word])[group])
    except (HydraException, ValueError):  # ValueError: the group's node is one word
        return None


def _has(node: Any, path: Sequence[str]) -> bool:
    """Whether keys within keys are there. What can't be looked into has any."""
    for name in path:
        if node is None or not isinstance(node, dict):
            return node is None
        if name not in node:
            return False
        node = node[name]
    return True
