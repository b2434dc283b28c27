"""The files from which a run comes, besides its config and this package."""

from fractal_ifs.config.data import ImageData
from fractal_ifs.config.measures import is_own
from fractal_ifs.config.own import Own
from fractal_ifs.config.own_class import file_digest, source_digest
from fractal_ifs.config.run import RunConfig

Known = dict[tuple[str, str], str | None]


def sources(config: RunConfig, known: Known | None = None) -> dict[str, str | None]:
    """The hash of each file as it is now, by the record's field. None for one that can't be read.

    Measures of one's own have those of all their files, ``mine=9bd5df5d4c96 other=7a8ea9d18a1d``: runs of one config
    may have different measures, so each module is to be compared on its own, as ``differ`` does.

    ``known``: the hashes of files that are read already, to which others are added.
    """
    known = {} if known is None else known
    found: dict[str, str | None] = {}
    for name, own in (("model_source", config.model), ("loss_source", config.loss)):
        if isinstance(own, Own):
            found[name] = _digest(own.target, known)
    if own_measures := [name for name in config.measures if is_own(name)]:
        digests = {name.rpartition(".")[0]: _digest(name, known) for name in own_measures}
        texts = [f"{module}={digest}" for module, digest in sorted(digests.items()) if digest]
        found["measure_source"] = " ".join(texts) or None
    data = config.data
    if isinstance(data, ImageData) and not data.verify:  # else they are the published ones
        from fractal_ifs.data.readers import digest  # here: it needs numpy, and a refusal doesn't

        found["data_source"] = digest(data)
    if path := config.trainer.ckpt_path:
        if ("file", path) not in known:
            known["file", path] = file_digest(path)
        found["ckpt_source"] = known["file", path]
    return found


def _digest(target: str, known: Known) -> str | None:
    if ("class", target) not in known:
        known["class", target] = source_digest(target)
    return known["class", target]


def differ(name: str, *values: str | None) -> bool:
    """Whether a field of a record has values of different files; of measures, those of modules that several have.

    None is of no known file, and differs from nothing.
    """
    digests: dict[str, set[str]] = {}
    for text in filter(None, values):
        for part in text.split() if name == "measure_source" else [f"={text}"]:
            module, _, digest = part.partition("=")
            digests.setdefault(module, set()).add(digest)
    return any(len(each) > 1 for each in digests.values())
