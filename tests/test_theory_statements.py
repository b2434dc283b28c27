"""Theorems 2 to 5 and the corollaries: formulas, what is measured, and the command line."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from fractal_ifs import theory
from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.cube import CubeIFS
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.fractals.ifs import AffineIFS
from fractal_ifs.networks.mlp import mlp
from fractal_ifs.theorems import conjecture1, corollary2, corollary3, theorem2, theorem3, theorem4, theorem5
from fractal_ifs.theorems.fold import CANTOR
from fractal_ifs.theorems.measure import LineDistribution
from fractal_ifs.theorems.problem import Problem, Section
from fractal_ifs.theorems.statements import STATEMENTS
from fractal_ifs.theory import _words_to_keys


def problem(settings: Any, fractal="cantor", n=4, curve="1", points=2000):
    ifs = CubeIFS.of(AffineIFS.load(fractal))
    return Problem(ifs, n, ifs.margin(n, None), ApproximationCurve.load(curve), points, 0, settings)


def test_theorem_2_by_hand():
    assert theorem2.least_width_printed(2, 4, 5, 5) == pytest.approx(2 / np.e * 2)
    assert theorem2.most_regions(2, 5, 3) == (1 + 5 + 10) ** 2
    assert theorem2.least_width_proven(1, 2, 10, 2) == 1023  # one hidden layer: k + 1 >= 2^10
    assert theorem2.least_width_proven(1, 2, 10, 3) == 31


def test_theorem_2_holds_and_the_constructed_network_has_a_region_per_cell():
    settings = theorem2.Settings(width=8, depth=2, lines=4, train_steps=20)
    checks = theorem2.check(problem(settings, "cantor2d", 3))
    assert all(c.holds for c in checks)
    assert next(c for c in checks if "one region per cell" in c.setting).values["distinct"] == 4**3


@pytest.mark.parametrize(("fractal", "curve"), [("cantor", "1"), ("cantor2d", "4")])
def test_theorem_3_errs_on_deeper_levels_only(fractal, curve):
    p = problem(Section(), fractal, 4, curve)
    for j in (1, 3):
        errors = theorem3.level_errors(p, j, 1)
        assert (errors[:j] == 0).all()
        assert errors[-1] == 0
        assert (errors[j:-1] > 0.9).all()
        assert p.law @ errors == pytest.approx(1 - p.P[j], abs=0.05)
    assert all(c.holds for c in theorem3.check(p))


def test_theorem_4_by_hand_and_below_every_network():
    P = ApproximationCurve.load("6").P(8)
    bound = theorem4.printed_bounds(P, 2, 3, 2)  # s = 2, st = 4
    assert np.flatnonzero(np.isfinite(bound)).tolist() == [5, 6, 7]
    assert bound[7] == pytest.approx((1 - 1 / 8) * 0.5)
    assert not np.isfinite(theorem4.printed_bounds(P, 2, 10, 5)).any()
    settings = theorem4.Settings(n=8, networks=((1, 2), (3, 2), (2, 3)), curves=("6",), train_steps=50)
    checks = theorem4.check(problem(settings, n=8))
    assert all(c.holds is not False for c in checks)
    assert any(c.holds for c in checks)
    with pytest.raises(ConfigError, match="d=1"):
        theorem4.check(problem(settings, "cantor2d"))


def test_theorem_5_is_trivial_at_bias_one_half():
    """The network is affine on [0, 1] and constant in sign, so every curve gives gradient 0 and error 1/2."""
    parameters = theorem5.networks_with_bias(200, 10, 4, 0.5, torch.Generator().manual_seed(0))
    assert (theorem5.affine_level(parameters, 10) == 0).all()
    for curve in ("1", "4", "6"):
        distribution = LineDistribution(CANTOR, ApproximationCurve.load(curve).level_probabilities(10))
        weights, biases = theorem5.gradient_sizes(distribution, parameters)
        assert max(weights.max(), biases.max()) < 1e-14
        assert distribution.error(parameters) == pytest.approx(np.full(200, 0.5))


def test_theorem_5_with_a_smaller_bias_depends_on_the_curve():
    parameters = theorem5.networks_with_bias(200, 6, 3, 0.1, torch.Generator().manual_seed(0))
    largest = []
    for curve in ("1", "4", "6"):
        distribution = LineDistribution(CANTOR, ApproximationCurve.load(curve).level_probabilities(20))
        largest.append(np.maximum(*theorem5.gradient_sizes(distribution, parameters)).max())
    assert largest[0] > 1e-5 > largest[1] > largest[2]


def test_gradient_is_bounded_by_where_the_network_is_affine():
    """Deterministic form of Theorem 5, with 2 in the place of 5: affine on C_n' implies gradient <= 2 (P(n') - 1/2)."""
    parameters = theorem5.networks_with_bias(300, 6, 4, 0.1, torch.Generator().manual_seed(1))
    level = theorem5.affine_level(parameters, 12)
    assert level.max() > 3
    for curve in ("1", "4"):
        c = ApproximationCurve.load(curve)
        distribution = LineDistribution(CANTOR, c.level_probabilities(12))
        size = np.maximum(*theorem5.gradient_sizes(distribution, parameters))
        affine = level <= 12
        assert (size[affine] <= 2 * (c.P(12)[level[affine]] - 0.5) + 1e-12).all()


def test_affine_level_equals_a_look_at_every_interval():
    n, parameters = 6, theorem5.networks_with_bias(40, 5, 3, 0.1, torch.Generator().manual_seed(3))
    level = theorem5.affine_level(parameters, n)
    for j in range(n + 1):
        words = CANTOR.words(j)
        ends = torch.from_numpy(np.stack([words.offsets[:, 0], words.offsets[:, 0] + words.matrices[:, 0, 0]], 1))
        inner = torch.linspace(0, 1, 201, dtype=torch.float64)
        x = (ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * inner).reshape(1, -1, 1).expand(40, -1, 1)
        f = mlp(parameters, x).reshape(40, -1, 201)
        bent = (f[:, :, 2:] - 2 * f[:, :, 1:-1] + f[:, :, :-2]).abs().amax((1, 2)).numpy()
        assert (bent[level <= j] < 1e-13).all()
        assert (bent[level > j] > 0).all()


def test_theorem_5_n_prime_by_hand():
    # log(4 * 3 * 100 / 0.1) / log(1.5) = 23.16
    assert theorem5.least_level(10, 3, 0.1) == 24


def test_corollary_2_needs_the_deeper_fold():
    settings = corollary2.Settings(width=10, delta=0.2, biases=(0.5,), initialisations=64, train_steps=20)
    checks = corollary2.check(problem(settings, points=5000))
    assert all(c.holds is not False for c in checks)
    units = [c.values["units"] for c in checks if c.statement.startswith("Corollary 2.2")]
    assert units == [2**5 - 1, 2**8 - 1]


def test_corollary_3_as_printed_is_vacuous():
    for n in (30, 95, 1000):
        assert 5 * corollary3.forced(n) > 1
        assert 0.5 - 1.5 * corollary3.forced(n) < 0


def test_random_systems_meet_the_assumptions():
    for seed in range(60):
        ifs = conjecture1.random_system(np.random.default_rng(seed), seed % 3 + 1)  # checks Assumption 2 itself
        assert ifs.epsilon > 1e-3
        assert 2 <= ifs.r <= 6


def test_conjecture_1_ranks_what_was_measured():
    settings = conjecture1.Settings(
        systems=9, width=4, shallow=1, deep=2, steps=5, lrs=(1e-2,), seeds=1, train_size=500
    )
    checks = conjecture1.check(problem(settings))
    again = conjecture1.check(problem(settings))
    rows = checks[0].values["systems"]
    assert rows == again[0].values["systems"]
    assert [row["d"] for row in rows] == [1, 2, 3] * 3
    assert all(0 <= row[kind] <= 1 for row in rows for kind in ("shallow", "deep"))
    assert all(c.holds is None for c in checks)


def test_words_on_the_command_line_are_statements():
    assert _words_to_keys(["theorem1", "fractal=vicsek"]) == ["statement=theorem1", "fractal=vicsek"]
    assert _words_to_keys(["theorem1", "theorem3", "-m"]) == ["--multirun", "statement=[theorem1,theorem3]"]
    assert _words_to_keys(["--config-dir", "mine", "seed=1"]) == ["--config-dir=mine", "seed=1"]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the entry point in this process, in an empty directory: the message it exits with, else None."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["theory", *arguments])
        theory.failed.clear()
        try:
            theory.main()
        except SystemExit as error:
            return error.code
        return None

    return run


def test_the_command_writes_table_record_and_picture(tmp_path):
    arguments = ["theorem1", "fractal=cantor", "points=3000", "hydra.run.dir=out"]
    done = subprocess.run(
        [sys.executable, "-m", "fractal_ifs.theory", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "5dr = 10" in done.stdout
    record = json.loads((tmp_path / "out/theory.json").read_text())
    assert record["holds"]
    assert record["checks"][2]["values"]["wrong"] == 0
    assert (tmp_path / "out/theorem1.png").stat().st_size > 1000
    assert not list((tmp_path / "out").glob("*.part*"))


def test_the_conjectures_experiment_has_a_name(command, tmp_path):
    """The file's thousand systems, of which a test takes six; the same six whatever the cores."""
    few = ["conjecture1.systems=6", "conjecture1.steps=20", "hydra.run.dir=out"]
    assert command("experiment=conjecture", *few) is None
    [every, *parts] = json.loads((tmp_path / "out/theory.json").read_text())["checks"]
    assert [row["d"] for row in every["values"]["systems"]] == [1, 2, 3, 1, 2, 3]
    assert len(parts) == 3
    assert (tmp_path / "out/conjecture1.png").stat().st_size > 1000
    assert command("experiment=conjecture", "conjecture1.systems=5", "hydra.run.dir=out") == (
        "error: conjecture1.systems=5: must be a whole number >= 6 and <= 1e6"
    )


def test_nothing_runs_before_all_keys_are_right(command, monkeypatch):
    """s=6 is refused for the fractal's depth, 5, which only the statement itself knows."""
    for name, statement in STATEMENTS.items():
        monkeypatch.setitem(STATEMENTS, name, dataclasses.replace(statement, check=lambda _: pytest.fail("computes")))
    assert command("all", "corollary1.s=[1,6]") == ("error: corollary1.s=6: must be a whole number in 1..5 (s <= n)")


def test_a_refused_job_is_told_and_its_sweep_goes_on(command, tmp_path):
    told = command("theorem1", "-m", "fractal=vicsek,cantor", "points=1000", "figures=false")
    assert told.startswith("error: fractal=vicsek: Assumption 1 fails, 4 pairs of cells")
    assert len(told.splitlines()) == 1
    assert len(list(tmp_path.glob("multirun/theory/*/theory.json"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["theorem9"], "statement=theorem9: must be all or one of"),
        (["theorem4", "fractal=cantor2d"], "Theorem 4 is for d=1"),
        (["theorem1", "fractal.depth=60"], "float64"),
        (["theorem1", "margin=1"], "Assumption 3"),
        (["corollary1", "corollary1.s=[9]"], "s <= n"),
        (["theorem1", "shrink=0"], "shrink=0"),
        (["theorem1", "points=0"], "points=0"),
        (["theorem5", "theorem5.n=80"], "theorem5.n=80"),
        (["theorem5", "theorem5.biases=[0.7]"], "theorem5.biases=[0.7]: must be"),
        (["theorem5", "theorem5.delta=x"], "theorem5.delta=x: must be a finite number >= 1e-12 and < 1"),
        (["theorem2", "theorem2.width=2.7"], "theorem2.width=2.7: must be a whole number >= 1"),
        (["theorem1", "corollary3.t=none"], "corollary3.t=none: must be a whole number >= 2"),
        (["theorem1", "theorem2=3"], "theorem2=3: must be keys with values"),
        (["theorem2", "+theorem2.widht=3"], "theorem2.widht=3: there is no such key; did you mean width?"),
        (["theorem1", "+theorem1.points=3"], "theorem1={'points': 3}: there is no such key"),
        (["theorem1", "+pionts=3"], "pionts=3: there is no such key; did you mean points?"),
        (["theorem2", "~theorem2.width"], "theorem2.width: must be given"),
        (["theorem1", "fractal=nothing"], "fractal=nothing"),
    ],
)
def test_bad_input_is_named_in_one_line(command, arguments, message):
    told = command(*arguments, "figures=false")
    assert message in told
    assert told.startswith("error: ")
    assert len(told.splitlines()) == 1
