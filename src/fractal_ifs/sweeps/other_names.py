"""Jobs whose runs lie in their sweep's directory under other names, because they were asked for in other words.

``seed=0,1`` joins a sweep that was begun without ``seed``: its run ``curve=1`` is the job ``curve=1,seed=0``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fractal_ifs.config.run import Job
from fractal_ifs.errors import ConfigError
from fractal_ifs.results.text_table import read_text
from fractal_ifs.runs.records import RESULT, SWEEP, TABLE, understood, walk
from fractal_ifs.sweeps.finished import finished_or_kept


def found_there(jobs: Sequence[Job], sweeps: Sequence[Path]) -> dict[int, Path]:
    """The directories of those runs, by the numbers of the jobs, whose own directories don't exist.

    A job that is to be trained anew has its own. So has one that would be refused where the run lies, because that was
    measured otherwise.
    """
    of_sweeps: dict[Path, dict[str, Path]] = {}
    taken, found = {job.directory for job in jobs}, dict[int, Path]()
    for number, (job, sweep) in enumerate(zip(jobs, sweeps, strict=True)):
        if job.directory is None or job.config.overwrite or os.path.lexists(job.directory):
            continue
        if sweep not in of_sweeps:
            of_sweeps[sweep] = _directories(sweep.absolute())
        names = of_sweeps[sweep]
        there = next((names[name] for name in job.config.fingerprints if name in names), None)
        if there is not None and there not in taken and _fits(job, there):
            found[number] = there
            taken.add(there)
    return found


def _fits(job: Job, there: Path) -> bool:
    """Whether a directory has the run of a job, and as it is asked for."""
    record = understood(there)
    if record is None or record.fingerprint not in job.config.fingerprints:
        return False
    try:
        finished_or_kept(job._replace(directory=there))
    except ConfigError:
        return False
    return True


def _directories(sweep: Path) -> dict[str, Path]:
    """The directories of the runs of a sweep, by their fingerprints, without those of another sweep below it.

    As its table has them, and of directories that the table doesn't name, as a run's that was moved there, as their
    records have them; all are such where the table is older than the sweep's last command, or missing.
    """
    try:
        if (sweep / TABLE).stat().st_mtime < (sweep / SWEEP).stat().st_mtime:  # no command has ended since
            raise FileNotFoundError
        rows = read_text(sweep / TABLE, "the table of a sweep", lambda row: bool(row.get("directory"))).rows.values()
        pairs = [(row["fingerprint"], Path(row["directory"])) for row in rows]
    except (OSError, ConfigError):
        pairs = []
    named = {path for _, path in pairs}
    for path, names in walk(sweep):
        if RESULT in names and (below := path.relative_to(sweep)) not in named and (record := understood(path)):
            pairs.append((record.fingerprint, below))
    return {
        name: sweep / path
        for name, path in pairs
        if path.parts
        and not (path.is_absolute() or ".." in path.parts)
        and not any((sweep / each / SWEEP).exists() for each in path.parents if each.parts)
    }
