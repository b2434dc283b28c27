import subprocess
import sys
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.convex import Box, Polytope, distance, hull, overlap
from fractal_ifs.fractals.ifs import AffineIFS
from fractal_ifs.fractals.named import names

FAMILIES = [name for name in names("fractal") if name != "custom"]
third = 1 / 3


def test_families_are_those_of_the_paper_and_the_textbooks():
    assert set(FAMILIES) == {
        *("cantor", "cantor2d", "sierpinsky", "pentaflake", "vicsek", "cantor2d_quarter"),
        *("sierpinski_triangle", "pentaflake_pentagon", "carpet", "cantor_dust"),
    }


@pytest.mark.parametrize(
    ("name", "ratio", "offsets"),
    [
        ("sierpinsky", 1 / 2, [(0, 1 / 2), (-1 / 2, -1 / 2), (1 / 2, -1 / 2)]),
        ("cantor2d", third, list(product((-2 / 3, 2 / 3), repeat=2))),
        ("pentaflake", third, [(-2 / 3, 0), (2 / 3, 0), (0, 2 / 3), (-third, -2 / 3), (third, -2 / 3)]),
        ("vicsek", third, [*product((-2 / 3, 2 / 3), repeat=2), (0, 0)]),
        ("cantor2d_quarter", 1 / 4, list(product((-3 / 4, 3 / 4), repeat=2))),
    ],
)
def test_maps_of_the_experiments(name, ratio, offsets):
    ifs = AffineIFS.load(name)
    np.testing.assert_array_equal(ifs.matrices, np.repeat(ratio * np.eye(2)[None], len(offsets), 0))
    np.testing.assert_array_equal(ifs.offsets, offsets)
    np.testing.assert_array_equal([ifs.base.lo, ifs.base.hi], [[-1, -1], [1, 1]])


def test_cantor_of_the_theory_turns_its_first_third_over():
    ifs = AffineIFS.load("cantor")
    x = np.array([0, 0.25, 1])
    np.testing.assert_allclose(ifs.matrices[0, 0, 0] * x + ifs.offsets[0, 0], 1 / 3 - x / 3)
    np.testing.assert_allclose(ifs.matrices[1, 0, 0] * x + ifs.offsets[1, 0], 2 / 3 + x / 3)
    np.testing.assert_array_equal([ifs.base.lo, ifs.base.hi], [[0], [1]])


def test_pentagons_have_the_golden_ratio_and_the_middle_one_is_turned():
    ifs = AffineIFS.load("pentaflake_pentagon")
    a = (3 - np.sqrt(5)) / 2
    np.testing.assert_allclose(ifs.matrices, [a * np.eye(2)] * 5 + [-a * np.eye(2)], atol=1e-15)
    sides = np.linalg.norm(ifs.base.vertices - np.roll(ifs.base.vertices, 1, 0), axis=1)
    np.testing.assert_allclose(sides, sides[0], rtol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_meets_assumption_2_without_overlap(name):
    ifs = AffineIFS.load(name)
    assert ifs.name == name
    assert ifs.images_inside()
    assert not ifs.separation().overlapping
    ifs.check(depth=5)


@pytest.mark.parametrize(
    ("name", "keys", "epsilon"),
    [
        ("cantor", {}, 1 / 3),
        ("cantor2d", {}, 2 / 3),
        ("cantor2d_quarter", {}, 1.0),
        ("cantor_dust", {"d": 3}, 2 / 3),
        ("vicsek", {"ratio": 0.3}, np.hypot(1, 1) * (2 / 3 - 0.6)),  # corner to corner
        ("sierpinski_triangle", {"ratio": 0.4}, np.sqrt(3) / 2 * 0.2),  # of the triangle's side, what ratios leave
        ("vicsek", {}, 0.0),
        ("sierpinsky", {}, 0.0),
        ("pentaflake", {}, 0.0),
    ],
)
def test_separation_is_the_least_distance(name, keys, epsilon):
    separation = AffineIFS.load(name, **keys).separation()
    assert separation.epsilon == pytest.approx(epsilon, abs=1e-9)
    assert bool(separation.touching) == (epsilon == 0)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]), st.integers(1, 9), st.booleans())
def test_separation_compares_every_pair(seed, d, r, boxes):
    """Though most pairs are told apart by the boxes around them."""
    rng = np.random.default_rng(seed)
    matrices = [np.diag(row) if boxes else np.diag(row) @ _turn(rng, d) for row in rng.uniform(0.05, 0.4, (r, d))]
    ifs = AffineIFS(matrices, rng.integers(-3, 4, (r, d)) * 0.2)
    pairs = list(combinations(range(r), 2))
    apart = {(i, j): distance(ifs.images[i], ifs.images[j]) for i, j in pairs}
    found = ifs.separation()
    assert found.epsilon == min(apart.values(), default=np.inf)
    met = [pair for pair in pairs if apart[pair] == 0]
    assert found.overlapping == [(i, j) for i, j in met if overlap(ifs.images[i], ifs.images[j])]
    assert found.touching == [pair for pair in met if pair not in found.overlapping]


def _turn(rng, d):
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def test_pairs_that_touch():
    assert AffineIFS.load("vicsek").separation().touching == [(0, 4), (1, 4), (2, 4), (3, 4)]
    overlapping = AffineIFS.load("vicsek", ratio=0.34).separation()
    assert overlapping.overlapping == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert overlapping.epsilon == 0


points = st.lists(st.tuples(*[st.floats(-1, 1)] * 2), min_size=4, max_size=7, unique=True)


@settings(max_examples=60)
@given(points, points, st.floats(-3, 3), st.floats(-3, 3))
def test_distance_of_polygons_against_dense_sampling(a, b, right, up):
    try:
        p, q = Polytope(np.array(a)), Polytope(np.array(b) + np.array([right, up]))
    except ConfigError:
        return  # flat
    t = np.linspace(0, 1, 60)[:, None]

    def boundary(polygon):
        ends = polygon.vertices
        return np.concatenate([e + t * (f - e) for e, f in zip(ends, np.roll(ends, -1, 0), strict=True)])

    x, y = boundary(p), boundary(q)
    sampled = np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1)).min()
    meet = q.contains(x).any() or p.contains(y).any()
    found = distance(p, q)
    if meet:
        assert found == 0
    else:
        assert found <= sampled + 1e-9
        assert sampled - found < 0.06  # two sampling steps of the longest side
    if found > 0:
        assert not overlap(p, q)


def test_boxes_and_their_turned_copies_agree():
    """A box and the same box as a polytope: two routes to one distance."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        lo = rng.uniform(-1, 1, (2, 3))
        a, b = (Box(corner, corner + rng.uniform(0.1, 1, 3)) for corner in lo)
        assert distance(a, b) == pytest.approx(distance(Polytope(a.vertices), Polytope(b.vertices)), abs=1e-8)
        assert overlap(a, b) == overlap(Polytope(a.vertices), Polytope(b.vertices))


def test_hull_recognises_boxes():
    assert isinstance(hull(np.array([[0, 0], [0, 2], [1, 0], [1, 2.0]])), Box)
    assert isinstance(hull(np.array([[0, 0], [0, 2], [1, 0], [1, 1.0]])), Polytope)


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_are_compositions_in_reading_order(name):
    ifs = AffineIFS.load(name)
    matrices, offsets = ifs.maps(3)
    assert matrices.shape == (ifs.r**3, ifs.d, ifs.d)
    x = np.linspace(-0.3, 0.4, ifs.d)
    for word, (i, j, k) in enumerate(product(range(ifs.r), repeat=3)):
        y = x
        for digit in (k, j, i):  # F_i after F_j after F_k
            y = ifs.matrices[digit] @ y + ifs.offsets[digit]
        np.testing.assert_allclose(matrices[word] @ x + offsets[word], y, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_gap_boxes_fill_what_the_images_leave(name):
    ifs = AffineIFS.load(name)
    gap = ifs.gap()
    if not isinstance(ifs.base, Box):
        assert gap is None
        return
    assert gap
    for i, box in enumerate(gap):
        assert box.inside(ifs.base)
        assert not any(overlap(box, other) for other in [*ifs.images, *gap[:i]])
    if ifs.negatives is None:
        left = ifs.base.volume - sum(image.volume for image in ifs.images)
        assert sum(box.volume for box in gap) == pytest.approx(left)


def test_volume_shrinks_by_the_determinants():
    assert AffineIFS.load("cantor").volume(4) == pytest.approx((2 / 3) ** 4)
    assert AffineIFS.load("sierpinsky").volume(3) == pytest.approx(4 * (3 / 4) ** 3)
    assert AffineIFS.load("cantor_dust", d=3).volume(2) == pytest.approx(8 * (8 / 27) ** 2)


@pytest.mark.parametrize("name", ["sierpinsky", "vicsek", "carpet", "sierpinski_triangle", "pentaflake_pentagon"])
def test_shrunk_images_keep_their_centres_and_come_apart(name):
    ifs = AffineIFS.load(name)
    shrunk = ifs.shrunk(0.9)
    assert shrunk.separation().epsilon > 0.01
    assert shrunk.images_inside()
    for old, new in zip(ifs.images, shrunk.images, strict=True):
        np.testing.assert_allclose(new.center, old.center, atol=1e-12)
        assert new.volume == pytest.approx(0.9**2 * old.volume)


def test_an_ifs_of_ones_own(tmp_path):
    """The same maps from Python, as keys, and from a file outside the package."""
    turn = 0.5 * np.array([[0.6, -0.8], [0.8, 0.6]])
    by_hand = AffineIFS([turn, 0.25 * np.eye(2)], [[0.1, 0], [0.5, 0.5]], base=[[1, 0], [0, 1], [-1, 0], [0, -1]])
    keys = {
        "maps": [
            {"matrix": [["3/10", -0.4], ["2/5", 0.3]], "offset": [0.1, 0]},
            {"matrix": "1/4", "offset": [0.5, 0.5]},
        ],
        "base": [[1, 0], [0, 1], [-1, 0], [0, -1]],
    }
    (tmp_path / "mine.yaml").write_text(
        "name: mine\n"
        "maps: [{matrix: [[3/10, -0.4], [2/5, 0.3]], offset: [0.1, 0]}, {matrix: 1/4, offset: [0.5, 0.5]}]\n"
        "base: [[1, 0], [0, 1], [-1, 0], [0, -1]]\n"
    )
    for other in (AffineIFS.load("custom", **keys), AffineIFS.load(str(tmp_path / "mine.yaml"))):
        np.testing.assert_allclose(other.matrices, by_hand.matrices)
        np.testing.assert_allclose(other.offsets, by_hand.offsets)
        assert other.base.volume == pytest.approx(2)
    assert AffineIFS.load(str(tmp_path / "mine.yaml")).name == "mine"
    assert by_hand.separation().epsilon == 0
    assert by_hand.separation().overlapping == [(0, 1)]


def test_boxes_as_bases():
    assert AffineIFS.load("vicsek", base="unit", ratio=0.1).base.lo.tolist() == [0, 0]
    assert AffineIFS.load("vicsek", base={"lo": [-2, -1], "hi": [1, "5/2"]}).base.hi.tolist() == [1, 2.5]
    assert AffineIFS.load("cantor", base=[[2], [0]]).base.hi.tolist() == [2]


def test_gaps_are_judged_by_their_own_sides_and_records_not_at_all():
    flat = AffineIFS([np.diag([0.4995, 0.1])] * 2, [[-0.5, 0], [0.5, 0]])  # wide where the maps are thin
    flat.check_drawn(5)
    thin = AffineIFS.load("custom", ratio=0.499, offsets=[[-0.5], [0.5]])
    thin.check(13)  # as of a run that was made before
    with pytest.raises(ConfigError, match=r"overlap about 1.01e.304-fold there; must be at most 100-fold"):
        AffineIFS.load("custom", ratio=0.99, offsets=[[-0.01], [0.01]]).check_drawn(5000)


def test_a_bad_fractal_is_refused_without_torch():
    code = (
        "import sys; from fractal_ifs.fractals.ifs import AffineIFS\n"
        "from fractal_ifs.fractals.curve import ApproximationCurve\n"
        "AffineIFS.load('vicsek').check(5, 0.001); ApproximationCurve.load(4).P(5)\n"
        "print(sorted({'torch', 'scipy', 'matplotlib', 'pandas', 'pytorch_lightning'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AffineIFS.load("viksek"), "fractal=viksek: unknown; nearest: vicsek"),
        (lambda: AffineIFS.load("nowhere.yaml"), "fractal=nowhere.yaml: cannot be read"),
        (lambda: AffineIFS.load("custom"), "fractal: has no maps; must have ratio [+] offsets"),
        (lambda: AffineIFS.load("custom", offsets=[[0]]), "fractal.offsets: needs fractal.ratio"),
        (lambda: AffineIFS.load("vicsek", corners=0.5), "fractal: has offsets and corners"),
        (lambda: AffineIFS.load("vicsek", ration=0.5), "fractal.ration: unknown key; nearest: ratio"),
        (lambda: AffineIFS.load("vicsek", ratio=1), "fractal.ratio=1: must be a number > 0 and < 1"),
        (lambda: AffineIFS.load("vicsek", ratio="1/0"), "fractal.ratio=1/0: must be a number"),
        (
            lambda: AffineIFS.load("vicsek", offsets=[[0, 1], [0]]),
            r"fractal.offsets\[1\]=\[0\]: must have 2 numbers, has 1",
        ),
        (lambda: AffineIFS.load("vicsek", offsets=[]), r"fractal.offsets=\[\]: must be a list"),
        (lambda: AffineIFS.load("vicsek", d=3), r"fractal.offsets\[0\]=.*: must have 3 numbers, has 2"),
        (lambda: AffineIFS.load("cantor_dust", d=0), "fractal.d=0: must be a whole number >= 1 and <= 10"),
        (lambda: AffineIFS.load("vicsek", depth=2.5), "fractal.depth=2.5: must be a whole number >= 1"),
        (lambda: AffineIFS.load("vicsek", base="disc"), "fractal.base=disc: must be cube"),
        (lambda: AffineIFS.load("vicsek", base=[[0, 0], [1, 1], [2, 2]]), "fractal.base=.*: .* must have a volume"),
        (
            lambda: AffineIFS.load("vicsek", base={"lo": [0, 0], "hi": [1, 0]}),
            "fractal.base=.*: every lo must be below",
        ),
        (lambda: AffineIFS.load("vicsek", negatives={"lo": [0, 0]}), "fractal.negatives=.*: must be {lo: "),
        (lambda: AffineIFS.load("vicsek", negatives={"lo": [0, 0], "hi": [1, 1]}), "must not overlap an image"),
        (lambda: AffineIFS.load("cantor2d", negatives={"lo": [0, 0], "hi": [0.1, 2]}), "must lie in K_0"),
        (lambda: AffineIFS.load("custom", maps=[{"matrix": 0.5}]), r"fractal.maps\[0\]=.*: must be {matrix"),
        (
            lambda: AffineIFS.load("custom", maps=[{"matrix": -1, "offset": [0]}]),
            "must contract, its spectral norm is 1",
        ),
        (lambda: AffineIFS([[[0.9, 0.9], [0, 0.9]]], [[0, 0]]), "must contract, its spectral norm is 1.4"),
        (lambda: AffineIFS([[[0.1, 0.1], [0.1, 0.1]]], [[0, 0]]), "must have full rank, is singular"),
        (lambda: AffineIFS([[0.5]], [[0, 0]]), r"fractal.matrices of shape \(1, 1\): must be of shape \(1, 2, 2\)"),
        (lambda: AffineIFS([[[np.nan]]], [[0]]), "every entry must be finite"),
        (lambda: AffineIFS([[[0.5]]], [[0]], base=Box(np.zeros(2), np.ones(2))), "fractal.base of dimension 2"),
        (lambda: AffineIFS.load("cantor").maps(30), "j=30: cantor has 2"),
        (lambda: AffineIFS.load("vicsek", ratio=0.35).volume(1), r"volume\(1\): images .* overlap; .* volume <= "),
        (lambda: AffineIFS.load("vicsek").shrunk(1.5), "factor=1.5: must be > 0 and <= 1"),
        (
            lambda: AffineIFS.load("vicsek", ratio=0.4).check(5),
            r"fractal.maps\[0\] of vicsek: must send K_0 into itself",
        ),
        (
            lambda: AffineIFS([np.diag([0.5, 1e-11])], [[0, 0]]).check(1),
            "fractal=custom: must have larger cells; those of K_1 are too small for float32 already",
        ),
        (lambda: AffineIFS.load("vicsek").check(12), "fractal.depth=12: must be <= 11, else the cells of vicsek"),
        (
            lambda: AffineIFS.load("custom", ratio=0.499, offsets=[[-0.5], [0.5]]).check_drawn(13),
            "fractal.depth=13: must be <= 12, else the gaps between the cells of custom are too small for float32",
        ),
        (
            lambda: AffineIFS.load("custom", ratio=0.9, offsets=[[-0.1, -0.1], [0.1, 0.1], [0.1, -0.1]]).check_drawn(6),
            "fractal.depth=6: the cells of custom overlap about 206-fold there; must be at most 100-fold",
        ),
        (
            lambda: AffineIFS([np.diag([0.3, 0.300002]), 0.2 * np.eye(2)], [[0.5] * 2, [-0.5] * 2]).check(3, 0.0270001),
            "margin=0.0270001: must be < 0.027,",
        ),
        (
            lambda: AffineIFS.load("cantor2d").check_drawn(5, (1 - 1e-7) / 3**5),
            "margin=0.00411523: must be < 0.00411523",
        ),
        (
            lambda: AffineIFS([[[0.5]]], [[0.0]], [[0.0], [1e39]]).check_drawn(2),
            "fractal.base of custom: its largest number must be >= 1e-30 and <= 1e30",
        ),
        (lambda: AffineIFS.load("vicsek").check(0), "fractal.depth=0: must be a whole number >= 1"),
        (lambda: AffineIFS.load("vicsek").check(5, 0.01), "margin=0.01: must be < 0.00411523, else K_5"),
        (lambda: AffineIFS.load("vicsek").check(5, -0.01), "margin=-0.01: must be a number >= 0"),
        (lambda: AffineIFS.load("custom", ratio=0.5, corners=0.5, d=2).check(3), "must leave a part of K_0 outside"),
    ],
)
def test_refusals_name_key_value_and_what_is_allowed(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
