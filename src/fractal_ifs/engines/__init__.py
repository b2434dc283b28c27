"""Engines advance runs: "advance these M runs by so many steps", and measure them. They know nothing else.

All engines offer
    advance(runs, steps, stop)  -> per run the sum of the batch losses (NaN or infinite: it diverged); moves
                                   ``run.step``, by fewer once a signal has put something into the list ``stop``
    evaluate(runs)              -> per run (test accuracy, test loss)
    full(runs, waiting)         -> whether it has enough to do with these, where so many more are waiting
"""

from collections.abc import Sequence
from typing import Any

from fractal_ifs.engines import native


def choose(config: dict[str, Any]) -> tuple[str, str | None]:
    """The engine of a run, and why it is not the native one (None where it is, or where torch was asked for)."""
    if config["model"]["name"] == "cnn":
        return "conv", None
    if config["engine"] == "torch":
        return "torch", None
    trainer = config["trainer"]
    if trainer["devices"] > 1:
        return "torch", f"trainer.devices={trainer['devices']}: the native engine trains each network on one core"
    if trainer["compile"]:
        return "torch", "trainer.compile=true asks for it"
    reason = native.supports(
        model=config["model"]["name"],
        loss=config["loss"],
        optimizer=config["optimizer"],
        dtype={"32-true": "float32"}.get(trainer["precision"], trainer["precision"]),
        device=trainer["accelerator"],
    )
    return ("native", None) if reason is None else ("torch", reason)


def create(name: str, threads: int, trainer: dict[str, Any], stack: int = 0, together: bool = False):
    """The engine ``native``, ``torch`` or ``conv``, by the keys of conf/trainer; ``together``: for a sweep."""
    if name == "native":
        return NativeEngine(threads)
    if name == "conv":
        from fractal_ifs.engines.conv import ConvEngine

        return ConvEngine(str(trainer["precision"]), trainer.get("channels_last", True), trainer["compile"])
    from fractal_ifs.engines.torch import TorchEngine

    return TorchEngine(str(trainer["precision"]), stack, trainer["compile"], trainer["cuda_graphs"], together)


SECOND = 1e11  # floating-point operations that a core does in a second, about


class NativeEngine:
    """Runs of any shapes side by side, each on one thread: ``fractal_ifs.engines.native``."""

    name = "native"

    def __init__(self, threads: int):
        self.threads, self.isa = threads, native.isa()

    def full(self, runs: Sequence[Any], waiting: int) -> bool:
        """Every thread has work for about a second of a round, and for as long as the largest run takes.

        So tiny networks come by eights, and of large ones, whose rounds take seconds, the first end hours before the
        last. Several threads take one more of these, for a round of what is learned takes half as long as of what is
        not. When there are too few left for another turn, all train, so that no thread is idle at the end.
        """
        work = [6.0 * run.params.numel() * run.batch_size * run.eval_every for run in runs]
        last = len(runs) + waiting < 2 * self.threads
        enough = max(self.threads * SECOND, (self.threads + (self.threads > 1)) * max(work))
        return len(runs) >= 8 * self.threads or (not last and sum(work) >= enough)

    def advance(self, runs: Sequence[Any], steps: Sequence[int], stop: list) -> list[float]:
        tasks = [
            native.Task(
                **self._network(run),
                x=run.data.x_train,
                y=run.data.y_train,
                exp_avg=run.exp_avg,
                exp_avg_sq=run.exp_avg_sq,
                shuffle_seed=run.shuffle_seed,
                step=run.step,
                steps=count,
                batch_size=run.batch_size,
                lr=run.lr,
                optimizer=run.optimizer,
            )
            for run, count in zip(runs, steps, strict=True)
        ]
        native.advance(tasks, self.threads, stop)
        for run, task in zip(runs, tasks, strict=True):
            run.step = task.step
        return [task.loss_sum for task in tasks]

    def evaluate(self, runs: Sequence[Any]) -> list[tuple[float, float]]:
        asked = [native.Evaluation(**self._network(run), x=run.data.x_test, y=run.data.y_test) for run in runs]
        found = native.evaluate(asked, self.threads)
        return [(right / len(one.y), loss) for (right, loss), one in zip(found, asked, strict=True)]

    @staticmethod
    def _network(run: Any) -> dict[str, Any]:
        model = run.model
        shape = {"d": model.d, "width": model.width, "depth": model.depth, "sum_last": model.sum_last}
        return {"params": run.params, "loss": run.loss, **shape}
