import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.curve import ApproximationCurve

# P(0..5) of the paper's six curves, to the digits known.
PAPER = {
    1: [0.5, 0.6294, 0.7421, 0.8402, 0.9257, 1],
    2: [0.5, 0.5, 0.5, 0.7063, 0.8700, 1],
    3: [0.5, 0.5, 0.5, 0.5, 0.7929, 1],
    4: [0.5, 0.5002, 0.5052, 0.5423, 0.6842, 1],
    5: [0.5, 0.5000, 0.5002, 0.5062, 0.5838, 1],
    6: [0.5, 0.5, 0.5, 0.5, 0.5, 1],
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_curves(name):
    curve = ApproximationCurve.load(name)
    assert curve.name == str(name)
    np.testing.assert_allclose(curve.P(5), PAPER[name], atol=5.1e-5)


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("n", [3, 4, 8, 30])
def test_every_depth_gives_a_law_and_its_curve(name, n):
    curve = ApproximationCurve.load(name)
    p, P, w = curve.level_probabilities(n), curve.P(n), curve.weights(n)
    assert p.shape == P.shape == (n + 1,)
    assert w.shape == (n,)
    assert (p >= 0).all()
    assert p[-1] == 0.5
    assert p.sum() == pytest.approx(1, abs=1e-14)
    assert P[0] == 0.5
    assert P[-1] == 1
    assert (np.diff(P) >= 0).all()
    np.testing.assert_allclose(P, 1.5 - 0.5 ** np.append(0, np.cumsum(w)), atol=1e-14)


def test_level_masses_are_those_of_the_walk_from_coarse_to_fine():
    w = np.array([1, 2, 3, 4, 5]) / 15
    reached, expected = 1.0, []
    for weight in w:
        expected.append(reached * (1 - 0.5**weight))
        reached *= 0.5**weight
    curve = ApproximationCurve(weights=[1, 2, 3, 4, 5])
    np.testing.assert_allclose(curve.level_probabilities(5), [*expected, reached], rtol=1e-14)
    np.testing.assert_allclose(ApproximationCurve(degree=1).level_probabilities(5), [*expected, reached], rtol=1e-14)


def test_tiny_weights_keep_their_digits():
    p = ApproximationCurve(degree=60).level_probabilities(5)
    assert p[0] == pytest.approx(np.log(2) * 5.0**-60, rel=1e-9)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=12).filter(lambda w: sum(w) > 1e-3))
def test_one_curve_in_three_ways(weights):
    n = len(weights)
    by_weights = ApproximationCurve(weights=weights)
    by_mass = ApproximationCurve(mass=2 * by_weights.level_probabilities(n)[:-1])
    by_P = ApproximationCurve(P=by_weights.P(n))
    for other in (by_mass, by_P):
        np.testing.assert_allclose(other.level_probabilities(n), by_weights.level_probabilities(n), atol=1e-12)
        np.testing.assert_allclose(other.weights(n), by_weights.weights(n), atol=1e-9)


def test_the_theorys_mass():
    """P(j) = 1/2 + (p_1 + ... + p_j)/2, Section 4."""
    curve = ApproximationCurve.load("mass", mass=["0", "1/4", 0.75])
    np.testing.assert_allclose(curve.P(3), [0.5, 0.5, 0.625, 1])


def test_names_tell_curves_of_one_kind_apart():
    assert ApproximationCurve.load("polynomial", degree=3).name == "polynomial(3)"
    assert ApproximationCurve.load("weights", weights=[1, 2.5]).name == "weights([1,2.5])"


def test_from_a_file_of_ones_own(tmp_path):
    path = tmp_path / "steep.yaml"
    path.write_text("name: steep\ndegree: 12\n")
    curve = ApproximationCurve.load(str(path))
    assert curve.name == "steep"
    np.testing.assert_allclose(curve.weights(2), np.array([0.5**12, 1]) / (1 + 0.5**12))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ApproximationCurve.load(7), "curve=7: unknown; known: 1, 2, 3, 4, 5, 6, P, last"),
        (lambda: ApproximationCurve.load("polynomal"), "curve=polynomal: unknown; nearest: polynomial"),
        (lambda: ApproximationCurve.load("polynomial"), r"curve.degree=\?\?\?: must be given"),
        (lambda: ApproximationCurve.load("polynomial", degre=3), "curve.degre: unknown key; nearest: degree"),
        (lambda: ApproximationCurve.load("polynomial", degree=-1), "curve.degree=-1: must be a number >= 0"),
        (lambda: ApproximationCurve.load("polynomial", degree="x"), "curve.degree=x: must be a number"),
        (lambda: ApproximationCurve.load("polynomial", degree=float("nan")), "curve.degree=nan: must be a number"),
        (lambda: ApproximationCurve(), "curve: has no values; must have one of degree"),
        (lambda: ApproximationCurve(degree=1, last=2), "curve: has degree and last; must have one of"),
        (lambda: ApproximationCurve(last=0), "curve.last=0: must be a whole number >= 1"),
        (lambda: ApproximationCurve.load("last", last=1.5), "curve.last=1.5: must be a whole number >= 1"),
        (lambda: ApproximationCurve(last=6).P(5), "curve.last=6: must be at most the fractal's depth, 5"),
        (lambda: ApproximationCurve(weights=[1, -1]), r"curve.weights=\[1, -1\]: must not be negative"),
        (lambda: ApproximationCurve(weights=[0, 0]), r"curve.weights=\[0, 0\]: must not all be zero"),
        (lambda: ApproximationCurve(weights=[1e308] * 2), "must not all be zero nor have an infinite sum"),
        (lambda: ApproximationCurve(weights=[]), r"curve.weights=\[\]: must have at least one number"),
        (lambda: ApproximationCurve(weights=[1, 2]).P(3), "must have 3 numbers for fractal.depth=3, has 2"),
        (lambda: ApproximationCurve(mass=[0.5, 0.4]), "curve.mass=.*: must sum to 1, sums to 0.9"),
        (lambda: ApproximationCurve(P=[0.5, 0.4, 1]), "curve.P=.*: must be nondecreasing from P"),
        (lambda: ApproximationCurve(P=[0.4, 0.6, 1]), "curve.P=.*: must be nondecreasing from P"),
        (lambda: ApproximationCurve(P=[0.5, 0.6, 0.9]), "curve.P=.*: must be nondecreasing from P"),
        (lambda: ApproximationCurve(P=[0.5, 0.6, 1]).P(3), "must have 4 numbers for fractal.depth=3, has 3"),
        (lambda: ApproximationCurve.load(1).P(0), "fractal.depth=0: must be a whole number >= 1"),
        (lambda: ApproximationCurve.load(1).P(True), "fractal.depth=true: must be a whole number >= 1"),
    ],
)
def test_refusals_name_key_value_and_what_is_allowed(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
