"""The same training in JAX: ``jit`` of a ``lax.scan`` over steps of ``vmap(grad)`` over runs, Adam by hand.

Needs the extra ``bench``. One process per core, pinned to it, with half (in general: its share) of the runs each.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

D, DEPTH, BATCH, N = 2, 5, 100, 50_000


def pin(cores) -> None:
    """Give a worker process a core of its own before JAX asks how many there are."""
    core = cores.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    os.environ["JAX_PLATFORMS"] = "cpu"


def seconds(width: int, runs: int, steps: int) -> float:
    """Seconds of ``steps`` steps of ``runs`` networks, the compiler's time left out."""
    return prepared(width, runs, steps)()


def prepared(width: int, runs: int, steps: int) -> Callable[[], float]:
    """Compiles, and gives the function of these seconds."""
    import jax  # pyright: ignore[reportMissingImports]
    import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
    from jax import lax  # pyright: ignore[reportMissingImports]

    sizes = [(D, width)] + [(width, width)] * (DEPTH - 1) + [(width, 1)]

    def f(p, x):
        """The network of a flat vector, so that Adam is one operation."""
        at = 0
        for i, o in sizes:
            w, b = p[at : at + i * o].reshape(i, o), p[at + i * o : at + i * o + o]
            x = x @ w + b
            x = jax.nn.relu(x) if o > 1 else x
            at += i * o + o
        return x[:, 0]

    def loss(p, x, y):
        return jnp.maximum(0, 1 - y * f(p, x)).mean()

    def step(p, m, v, t, x, y):
        g = jax.grad(loss)(p, x, y)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        return p - 5e-4 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v

    @jax.jit
    def epoch(state, order, x, y):
        """One epoch of every run: order (runs, steps, batch), x (runs, N, d), y (runs, N)."""
        batches = jax.vmap(lambda points, rows: points[rows])
        xs, ys = batches(x, order).swapaxes(0, 1), batches(y, order).swapaxes(0, 1)

        def body(state, batch):
            p, m, v, t = state
            return (*jax.vmap(step, (0, 0, 0, None, 0, 0))(p, m, v, t + 1, *batch), t + 1), None

        return lax.scan(body, state, (xs, ys))[0]

    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.uniform(keys[0], (runs, N, D), minval=-1, maxval=1)
    y = jnp.where(jax.random.uniform(keys[1], (runs, N)) < 0.5, -1.0, 1.0)
    p = jax.random.normal(keys[2], (runs, sum(i * o + o for i, o in sizes))) / max(width, 2) ** 0.5
    state = (p, jnp.zeros_like(p), jnp.zeros_like(p), 0.0)
    chunk = min(steps, N // BATCH)
    order = jax.random.randint(keys[3], (runs, chunk, BATCH), 0, N)
    jax.block_until_ready(epoch(state, order, x, y))

    def once() -> float:
        nonlocal state
        begun = time.perf_counter()
        for _ in range(steps // chunk):
            state = epoch(state, order, x, y)
        jax.block_until_ready(state)
        return (time.perf_counter() - begun) * steps / (steps // chunk * chunk)

    return once


class Pool:
    """One pinned process per core."""

    def __init__(self, cores: int):
        context = multiprocessing.get_context("spawn")
        queue = context.SimpleQueue()
        for core in sorted(os.sched_getaffinity(0))[:cores]:
            queue.put(core)
        self.cores, self.pool = (
            cores,
            ProcessPoolExecutor(cores, mp_context=context, initializer=pin, initargs=(queue,)),
        )

    def __call__(self, width: int, runs: int, steps: int) -> float:
        """Seconds of ``steps`` steps of ``runs`` runs on all cores at once."""
        share = [self.pool.submit(seconds, width, runs // self.cores, steps) for _ in range(self.cores)]
        return max(future.result() for future in share)
