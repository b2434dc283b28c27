"""The files from which a run comes, besides its config and this package."""

from fractal_ifs.config.own import Own
from fractal_ifs.config.own_class import file_digest, source_digest
from fractal_ifs.config.run import RunConfig


def sources(config: RunConfig, known: dict[tuple[str, str], str | None] | None = None) -> dict[str, str | None]:
    """The hash of each file as it is now, by the record's field. None for one that can't be read.

    ``known``: the hashes of files that are read already, to which others are added.
    """
    known = {} if known is None else known
    found: dict[str, str | None] = {}
    for name, own in (("model_source", config.model), ("loss_source", config.loss)):
        if isinstance(own, Own):
            if ("class", own.target) not in known:
                known["class", own.target] = source_digest(own.target)
            found[name] = known["class", own.target]
    if path := config.trainer.ckpt_path:
        if ("file", path) not in known:
            known["file", path] = file_digest(path)
        found["ckpt_source"] = known["file", path]
    return found
