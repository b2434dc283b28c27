"""Trains and evaluates networks of odd shapes with the modules built in a folder: for ``native_sanitize.sh``.

Arrays end where a C allocation ends, so that a sanitizer sees every step past them.
"""

import itertools
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np

from fractal_ifs import doctor
from fractal_ifs.engines import cpp as native

SHAPES = [*itertools.product((1, 2, 5), (1, 7, 16, 31, 65, 128), (1, 2, 5), (1, 33, 100))]  # d, width, depth, batch


def load(path: Path):
    name = path.name.split(".")[0]
    spec = spec_from_file_location(name, path, loader=ExtensionFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(folder: str) -> None:
    modules = {path.name.split(".")[0]: path for path in Path(folder).rglob("_native_*.so")}
    supported = load(modules["_native_base"]).supported()
    for isa in [name for name in supported if f"_native_{name}" in modules]:
        module = load(modules[f"_native_{isa}"])
        tasks = []
        for i, (d, width, depth, batch) in enumerate(SHAPES):
            task = doctor.task(width, seed=i, depth=depth, d=d, n=2 * batch + 1)
            task.batch_size, task.steps, task.sum_last = batch, 5, i % 5 == 0
            task.loss, task.optimizer = native.LOSSES[i % 5], native.OPTIMIZERS[i % 3]
            if i % 4:
                task.momentum, task.clip = 0.9 * (task.optimizer == "sgd"), (None, 0.1)[i % 2]
                task.average, task.shares = task.params.copy(), np.full(5, 0.5)
                task.weight_decay, task.rates = 0.01, np.full(5, 1e-3)
            native._check_training(task)
            tasks.append(task)
        module.advance(tasks, 3, [])
        assert len(tasks) == len(SHAPES)
        results = module.evaluate(tasks, 3)
        assert all(np.isfinite(t.loss_sum) and t.step == 5 for t in tasks)
        assert all(np.isfinite(loss) for _, loss in results)
        for n in (1, 70_000):
            assert sorted(module.permutation(3, 4, n)) == list(range(n))
        print(f"{isa}: {len(tasks)} networks, clean")


if __name__ == "__main__":
    main(sys.argv[1])
