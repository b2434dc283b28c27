"""Jobs whose runs lie in their sweep's directory under other names, because they were asked for in other words.

``seed=0,1`` joins a sweep that was begun without ``seed``: its run ``curve=1`` is the job ``curve=1,seed=0``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fractal_ifs.config.run import Job
from fractal_ifs.errors import ConfigError
from fractal_ifs.results.text_table import TABLE, read_text
from fractal_ifs.runs.records import understood


def found_there(jobs: Sequence[Job], sweeps: Sequence[Path]) -> dict[int, Path]:
    """The directories of those runs, by the numbers of the jobs, whose own directories don't exist.

    They are those that the sweeps' tables name, which are written whenever a command ends, with a record of the run.
    """
    tables: dict[Path, dict[str, Path]] = {}
    taken, found = {job.directory for job in jobs}, dict[int, Path]()
    for number, (job, sweep) in enumerate(zip(jobs, sweeps, strict=True)):
        if job.directory is None or os.path.lexists(job.directory):
            continue
        if sweep not in tables:
            tables[sweep] = _directories(sweep.absolute())
        there = next((tables[sweep][name] for name in job.config.fingerprints if name in tables[sweep]), None)
        if there is None or there in taken:
            continue
        record = understood(there)
        if record and record.fingerprint in job.config.fingerprints:
            found[number] = there
            taken.add(there)
    return found


def _directories(sweep: Path) -> dict[str, Path]:
    """The directories below a sweep's that its table has, by the fingerprints of their runs."""
    try:
        rows = read_text(sweep / TABLE, "the table of a sweep", lambda row: bool(row.get("directory"))).rows.values()
    except (FileNotFoundError, ConfigError):
        return {}
    pairs = ((row["fingerprint"], Path(row["directory"])) for row in rows)
    return {name: sweep / path for name, path in pairs if not path.is_absolute() and ".." not in path.parts}
