"""The names of sweeps and of runs' directories, made from the words of the command."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from fractal_ifs.config.command import parsed
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.files import read

# Keys that are left out of names: they don't change a result, or only say where it lies. conf/config.yaml has the same.
NOT_IN_NAMES = (
    *("sweep", "overwrite", "kept", "continue_from", "engine", "workers", "logger", "experiment"),
    *("data.dir", "data.url", "data.val_size", "measures", "measure_start"),
)
LOOKS = ("figures", "formats", "width", "font", "dpi")  # of the pictures of theory; conf/theory.yaml has the same
LENGTH = 200  # bytes of a name; file systems allow 255, and temporary files have longer names


def sweep_name(words: Sequence[str]) -> str:
    """The name of a sweep, for example ``fractal=vicsek,curve,width``: fixed keys with their value, swept keys without.

    So the sweep keeps its name, and its finished runs, when swept values are added. What an earlier version
    began goes on under the name that it had, with the same words.
    """
    plain = [word for word in words if not of_logger(word)]
    name, formers = _sweep_name(plain), [_sweep_name(each, _was_swept) for each in (words, plain)]
    there = (each for each in formers if any(os.path.exists(f"multirun/{path}") for path in (each, safe(each))))
    return next(there, name)


def _is_swept(word: str) -> bool:
    """Whether a word gives a key several values. Hydra is asked where a comma alone doesn't say: it may take long."""
    value = word.partition("=")[2]
    if value[:1] not in ("[", "{", "'", '"') and "(" not in value:
        return "," in value
    try:
        override = parsed(word)
    except ConfigError:  # it is told when the words are read
        return False
    return override is not None and override.is_sweep_override()


def _was_swept(word: str) -> bool:
    """As earlier versions had it, which took no list, mapping or text in quotes for a swept one."""
    value = word.partition("=")[2]
    return ("," in value and value[:1] not in "[{('\"") or value.startswith(
        ("range(", "choice(", "interval(", "glob(", "shuffle(", "sort(")
    )


def _sweep_name(words: Sequence[str], swept: Callable[[str], bool] = _is_swept) -> str:
    parts: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        if key.startswith(("-", "hydra")) or key.lstrip("+~") in NOT_IN_NAMES:
            continue
        parts.append(key if swept(word) else f"{key}={value}")
    name = ",".join(parts).replace("/", "_") or _of_experiment(words, swept)
    if len(name) > 150:
        name = name[:120] + "-" + _digest(name)
    return name


def of_logger(word: str) -> bool:
    """Whether a word is a key of loggers, which say where a run is told of. Earlier versions had them in names."""
    return word.lstrip("+~").startswith("logger.")


def _of_experiment(words: Sequence[str], swept: Callable[[str], bool]) -> str:
    """The name of a sweep that is an experiment, without other words. Earlier versions called all of them default."""
    word = next((word.lstrip("+") for word in words if word.lstrip("+").startswith("experiment=")), "")
    name = word.partition("=")[2]
    if not name or swept(word):
        return "default"
    former = Path("multirun/default")
    if any(is_of(path, name) for path in (former / "multirun.yaml", *former.glob("*/.hydra/hydra.yaml"))):
        return "default"
    return word.replace("/", "_")


def is_of(path: Path | str, experiment: str) -> bool:
    """Whether what Hydra wrote of a run or a sweep into a file says that it is of this experiment, or of ``null``."""
    try:
        return f"experiment: {experiment}\n" in read(Path(path)).decode(errors="replace")
    except OSError:
        return False


def told_apart(words: Sequence[str]) -> set[str]:
    """Keys left out of names in which a command's jobs differ, so that their names must say them."""
    keys = {"experiment", *LOOKS}
    return {key for word in words if (key := word.partition("=")[0].lstrip("+")) in keys and _is_swept(word)}


def run_name(words: Sequence[str], exclude: Sequence[str], item_sep: str = ",", kv_sep: str = "=") -> str:
    """The name of a run's directory: its words in order, as Hydra's ``hydra.job.override_dirname``.

    ``exclude`` are keys that are left out; ``item_sep`` stands between words, ``kv_sep`` for their "=".
    """
    kept = [word for word in words if re.split("[=@]", word.lstrip("+~"))[0] not in exclude]
    return item_sep.join(sorted(kept)).replace("=", kv_sep)


def safe(name: str) -> str:
    """A name as one directory, without blanks, quotes, slashes and wildcards. One that has none stays as it is.

    Other characters become "_", and a few digits of a hash keep names apart that would be the same.
    """
    plain = re.sub(r"[^\w=,.+~@%()\[\]{}-]", "_", name)
    if plain == name and name.strip(".") and len(name.encode()) <= LENGTH:
        return name
    start = plain.encode()[: LENGTH - 13].decode(errors="ignore")
    return f"{start}-{_digest(name)}"


def unquoted(word: str) -> str:
    """A word without quotes that change nothing: sweepers of others write ``curve='1'`` for a user's ``curve=1``."""
    return re.sub(r"""=(['"])([\w.+-]+)\1$""", r"=\2", word)


def sweep_directory(sweep: str) -> str:
    """The directory of the sweep of a name: below multirun/, or where an absolute path says.

    A sweep that earlier versions began under an unsafe name, or outside of multirun/, is found there.
    Raises ConfigError for an empty name, and for another that leads out of multirun/.
    """
    path, former = Path(sweep), f"multirun/{sweep}"
    if not path.parts:
        raise ConfigError(f"sweep={sweep}: must be a name, or the path of a directory")
    if ".." in path.parts and not path.is_absolute():
        if os.path.isfile(f"{former}/multirun.yaml"):
            return former
        raise ConfigError(f"sweep={short(sweep)}: must be a path below multirun/, or an absolute path")
    if any(part.startswith(".") for part in path.parts) and not (path.is_absolute() or os.path.exists(former)):
        raise ConfigError(f"sweep={short(sweep)}: must not be hidden, or no table of multirun/ finds its runs")
    if os.path.exists(former):  # not Path.exists, which raises OSError for a name that is too long
        return former
    return sweep if path.is_absolute() else str(Path("multirun", *map(safe, path.parts)))


def run_directory(parent: str, name: str, *formers: str) -> str:
    """The name of a run's directory below ``parent``. One that earlier versions made is kept.

    They had unsafe names, and ``formers``, which have all quotes of the words, or keys that are left out now.
    """
    others = [each for former in formers if former not in ("", name) for each in (safe(name), former, safe(former))]
    kept = next((each for each in (name, *others) if each and os.path.exists(os.path.join(parent, each))), None)
    return kept or (safe(name) if name else name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
