import hashlib
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy import stats

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.fractals.distribution import FractalDistribution
from fractal_ifs.fractals.ifs import DEPTH, AffineIFS
from fractal_ifs.fractals.named import names
from fractal_ifs.fractals.samplers import BoxMixture, WordSampler, sampler
from fractal_ifs.fractals.splitmix import derive, words

FAMILIES = [name for name in names("fractal") if name != "custom"]
POLYGONS = ("sierpinski_triangle", "pentaflake_pentagon")
SKEWED = AffineIFS(  # unequal maps that turn and squeeze: nothing about it is a box
    [0.5 * np.array([[0.6, -0.8], [0.8, 0.6]]), [[0.3, 0.1], [0, 0.2]]], [[-0.2, -0.2], [0.55, 0.7]], name="skewed"
)
OVERLAPPING = AffineIFS.load("custom", ratio=0.5, offsets=[[-0.5, -0.5], [0.2, -0.1]])
THIN = AffineIFS.load("custom", ratio=0.499, offsets=[[-0.5], [0.5]])  # its gaps are a thousandth of K_0
SLIVER = AffineIFS.load("custom", ratio=0.2999995, offsets=[[-0.7], [-0.1]])  # images that just don't touch


def chi_square_p(counts, probabilities):
    """The p-value of counts against a law; what is impossible must not occur."""
    counts, probabilities = np.asarray(counts), np.asarray(probabilities)
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    expected = counts.sum() * probabilities[possible]
    return stats.chisquare(counts[possible], expected).pvalue if possible.sum() > 1 else 1.0


def level_counts(sample, depth):
    return torch.bincount(sample.level, minlength=depth + 2)[1:].numpy()


@pytest.mark.parametrize("curve", [1, 4, 6])
@pytest.mark.parametrize("name", FAMILIES)
def test_level_counts_follow_the_exact_law(name, curve):
    distribution = FractalDistribution(name, curve)
    m = 4_000 if name in POLYGONS else 50_000
    p_values = [
        chi_square_p(level_counts(distribution.sample(m, seed), 5), distribution.level_probabilities)
        for seed in range(6)
    ]
    too_good = 1 - np.minimum(p_values, 1 - 1e-12)
    for p in (p_values, too_good):
        combined: Any = stats.combine_pvalues(p)
        assert combined.pvalue > 1e-4


def test_the_law_test_would_notice_a_fiftieth():
    distribution = FractalDistribution("vicsek", 1)
    counts = level_counts(distribution.sample(1_000_000), 5)
    wrong = distribution.level_probabilities * [1.02, 1, 1, 1, 1, 1]
    assert chi_square_p(counts, wrong / wrong.sum()) < 1e-4


@pytest.mark.parametrize("curve", [1, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_level_agrees_with_sample(name, curve):
    distribution = FractalDistribution(name, curve)
    x, y, level = distribution.sample(5_000 if name in POLYGONS else 50_000, seed=3)
    assert x.dtype == y.dtype == torch.float32
    assert level.dtype == torch.int64
    assert x.shape == (len(y), distribution.d)
    torch.testing.assert_close(distribution.level(x), level - 1, rtol=0, atol=0)
    assert torch.equal(y == 1, level == 6)
    assert set(y.tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("fractal", "depth"),
    [
        (AffineIFS.load("cantor_dust", d=1), 7),
        (AffineIFS.load("cantor_dust", d=3), 3),
        (AffineIFS.load("cantor_dust", d=5, ratio=0.3), 2),
        (AffineIFS.load("vicsek").shrunk(0.8), 4),
        (AffineIFS.load("cantor2d", ratio=0.2), 4),
        ("vicsek", 11),  # the deepest that float32 carries: its steps there are 1/190 of a cell
        ("sierpinsky", 17),
        ("cantor", 11),
        (SKEWED, 4),
        (OVERLAPPING, 4),
        (THIN, 12),  # the deepest: its gaps are 4 steps of float32 there
        (SLIVER, 5),  # too thin for float32, and so small that it is left out
    ],
    ids=str,
)
def test_level_agrees_with_sample_for_any_ifs_and_depth(fractal, depth):
    distribution = FractalDistribution(fractal, 1, depth)
    sample = distribution.sample(10_000, seed=1)
    assert torch.equal(distribution.level(sample.x), sample.level - 1)
    assert chi_square_p(level_counts(sample, depth), distribution.level_probabilities) > 1e-4


LINE = AffineIFS(  # images [-1, .1] and [-.3, .5]: unequal, and they overlap in a fifth of what they cover
    [[[0.55]], [[0.4]]], [[-0.45], [0.1]], name="line"
)


def covered(n):
    """The intervals of LINE's K_n, apart and in order: (k, 2)."""
    matrices, offsets = LINE.maps(n)
    ends = np.sort(np.stack([offsets[:, 0] - matrices[:, 0, 0], offsets[:, 0] + matrices[:, 0, 0]], 1), 1)
    found: list[list[float]] = []
    for low, high in ends[np.argsort(ends[:, 0])]:
        if found and low <= found[-1][1]:
            found[-1][1] = max(found[-1][1], high)
        else:
            found.append([low, high])
    return np.array(found)


def length_left_of(x, intervals):
    return np.clip(x[:, None] - intervals[:, 0], 0, intervals[:, 1] - intervals[:, 0]).sum(1)


def p_of_uniform(x, intervals, without=None):
    """The p-value of x being uniform on the intervals, without some that lie in them."""

    def left(at):
        return length_left_of(at, intervals) - (0 if without is None else length_left_of(at, without))

    return stats.kstest(left(x) / left(np.array([2.0])), "uniform").pvalue


@pytest.mark.parametrize(("overlaps", "uniform"), [("once", True), ("repeated", False)])
def test_where_images_overlap_points_are_uniform_on_what_they_cover(overlaps, uniform):
    """On the line the law is known exactly: positives on K_3, negatives of level j on K_(j-1) without K_j."""
    x, _, level = FractalDistribution(LINE, 1, 3, overlaps=overlaps).sample(20_000, seed=1)
    x, level = x[:, 0].double().numpy(), level.numpy()
    p = [p_of_uniform(x[level == j], covered(j - 1), covered(j)) for j in (1, 2, 3)]
    p.append(p_of_uniform(x[level == 4], covered(3)))
    assert p[0] > 1e-3  # K_0 has one cell
    assert (min(p) > 1e-3) == uniform
    if not uniform:
        assert p[-1] < 1e-9


def test_in_the_plane_overlaps_hold_their_share_of_the_area():
    """Three squares of ratio .6, whose cells are counted by hand; repeated points lie too often in several."""
    ifs = AffineIFS.load("custom", ratio=0.6, offsets=[[-0.4, -0.4], [0.4, -0.4], [0, 0.4]])
    corners = np.array([a + 0.6 * b for a in ifs.offsets for b in ifs.offsets])

    def several(x):
        cells = (np.abs(x[:, None] - corners) <= 0.36).all(2).sum(1)
        return (cells[cells > 0] > 1).mean()

    side = (np.arange(500) + 0.5) / 250 - 1
    area = several(np.stack(np.meshgrid(side, side), -1).reshape(-1, 2))
    shares = {}
    for overlaps in ("once", "repeated"):
        x, y, _ = FractalDistribution(ifs, 1, 2, overlaps=overlaps).sample(30_000, seed=2)
        shares[overlaps] = several(x[y > 0].double().numpy())
    assert shares["once"] == pytest.approx(area, abs=0.016)  # four standard errors
    assert shares["repeated"] > area + 0.05


def test_a_margin_counts_only_the_cells_that_keep_it():
    margin = 0.02
    x, y, _ = FractalDistribution(LINE, 1, 2, margin).sample(20_000, seed=4)
    matrices, offsets = LINE.maps(2)
    half = matrices[:, 0, 0] - margin
    ends = np.stack([offsets[:, 0] - half, offsets[:, 0] + half], 1)
    inside = x[y > 0, 0].double().numpy()
    grid = np.linspace(-1, 1, 200_001)
    on = ((grid[:, None] > ends[:, 0]) & (grid[:, None] < ends[:, 1])).any(1).cumsum()
    assert stats.kstest(on[np.searchsorted(grid, inside)] / on[-1], "uniform").pvalue > 1e-3


def test_without_overlaps_there_is_nothing_to_tell_apart():
    for fractal in ("vicsek", "sierpinski_triangle", SKEWED):
        once, repeated = (FractalDistribution(fractal, 1, 3, overlaps=o).sample(500) for o in ("once", "repeated"))
        assert torch.equal(once.x, repeated.x)
    before = FractalDistribution(OVERLAPPING, 1, 4, overlaps="repeated").sample(2000, seed=3)
    assert hashlib.sha256(before.x.numpy().tobytes()).hexdigest()[:16] == "91f1d68dd8189359"  # of the first version
    with pytest.raises(ConfigError, match="overlaps=twice: must be one of once, repeated"):
        FractalDistribution("vicsek", overlaps="twice")


def test_level_may_be_wrong_on_a_boundary_by_rounding_alone():
    """The ends of the Cantor set's cells lie in every K_j. Some are told to lie outside, but none 1e-9 further in."""
    distribution = FractalDistribution("cantor", 1, 8)
    matrices, offsets = distribution.ifs.maps(8)
    ends = np.sort(np.concatenate([offsets, offsets + matrices[:, 0]], 1), 1)
    assert (distribution.level(ends.reshape(-1, 1)) < 8).any()
    assert (distribution.level((ends + np.array([1e-9, -1e-9])).reshape(-1, 1)) == 8).all()
    assert (distribution.level((ends - np.array([1e-9, -1e-9])).reshape(-1, 1)) < 8).all()


def in_the_base(distribution, sample, level):
    """The points of one level drawn back to K_0: by the inverse of the one cell they lie in."""
    x = sample.x[sample.level == level].double()
    for _ in range(level - 1):
        candidates = torch.einsum(
            "iab,pib->pia",
            torch.tensor(np.linalg.inv(distribution.ifs.matrices)),
            x[:, None] - torch.tensor(distribution.ifs.offsets),
        )
        base = distribution.ifs.base
        inside = ((candidates > torch.tensor(base.lo)) & (candidates < torch.tensor(base.hi))).all(-1)
        x = candidates[torch.arange(len(x)), inside.int().argmax(-1)]
    return x.numpy()


@pytest.mark.parametrize("level", [1, 3, 6])
def test_cantor2d_negatives_are_uniform_in_the_central_third(level):
    distribution = FractalDistribution("cantor2d", 1)
    z = in_the_base(distribution, distribution.sample(100_000), level)
    side = 1 if level == 6 else 1 / 3  # positives, level 6, fill their cell
    assert np.abs(z).max() < side + 1e-3  # rounding to float32, seen from the magnified cell
    counts = np.histogram2d(*z.T, bins=6, range=[[-side, side]] * 2)[0]
    assert chi_square_p(counts.ravel(), np.full(36, 1 / 36)) > 1e-4
    for u in z.T:
        assert stats.kstest(u[:5000], stats.uniform(-side, 2 * side).cdf).pvalue > 1e-4


@pytest.mark.parametrize("name", ["sierpinsky", "pentaflake", "vicsek", "carpet", "cantor2d_quarter"])
@pytest.mark.parametrize("level", [1, 4])
def test_negatives_are_uniform_in_the_parent_minus_its_children(name, level):
    distribution = FractalDistribution(name, 1)
    z = in_the_base(distribution, distribution.sample(200_000, seed=5), level)
    cells = 12  # a grid that the faces of all images fall on: squares are all in the gap or all out of it
    counts = np.histogram2d(*z.T, bins=cells, range=[[-1, 1]] * 2)[0]
    centers = (np.stack(np.meshgrid(*[np.arange(cells)] * 2, indexing="ij"), -1) + 0.5) * 2 / cells - 1
    if name == "cantor2d_quarter":
        free = np.abs(centers).min(-1) < 0.5  # the children are the squares of side 1/2 in the corners
    else:
        free = ~np.any([image.contains(centers) for image in distribution.ifs.images], axis=0)
    assert counts[~free].sum() <= 2e-3 * counts.sum()  # rounding at faces, in the base's magnified coordinates
    assert chi_square_p(np.where(free, counts, 0).ravel(), (free / free.sum()).ravel()) > 1e-4


@pytest.mark.parametrize("name", ["vicsek", "cantor2d", "sierpinsky", "cantor"])
@pytest.mark.parametrize("margin", [0.0, 0.001])
def test_the_two_samplers_have_one_law(name, margin):
    """The lookup among boxes against the general walk through random words: cells of K_4 that points fall into."""
    ifs = AffineIFS.load(name)
    p = ApproximationCurve.load(1).level_probabilities(4)
    fast, general = sampler(ifs, p, margin), WordSampler(ifs, p, margin)
    assert isinstance(fast, BoxMixture)
    counts = []
    for draw, m in ((fast.draw, 60_000), (general.draw, 40_000)):
        x, level = draw(7, torch.arange(m))
        square = ((x.double().numpy() + 1) / 2 * 27).astype(int)  # a grid of 27 (54 for [0, 1]) per axis
        place = square[:, 0] * 27 + (square[:, 1] if ifs.d == 2 else 0)
        counts.append(np.bincount(place * 6 + level.numpy(), minlength=27 * 27 * 6))
    table = np.array(counts)
    table = table[:, table.sum(0) > 20]
    contingency: Any = stats.chi2_contingency(table)
    assert contingency.pvalue > 1e-4


def test_cells_are_uniform():
    """Positives of the skewed IFS by their first two maps, found by the inverse maps; its cells differ in size."""
    distribution = FractalDistribution(SKEWED, 1, 3)
    sample = distribution.sample(20_000, seed=2)
    z, digits = sample.x[sample.y > 0].double(), []
    for _ in range(2):
        back = torch.einsum(
            "iab,pib->pia", torch.tensor(np.linalg.inv(SKEWED.matrices)), z[:, None] - torch.tensor(SKEWED.offsets)
        )
        digit = (back.abs() <= 1).all(-1).int().argmax(-1)
        digits.append(digit)
        z = back[torch.arange(len(z)), digit]
    assert chi_square_p(torch.bincount(2 * digits[0] + digits[1], minlength=4).numpy(), np.full(4, 0.25)) > 1e-4


@pytest.mark.parametrize(
    ("fractal", "depth"),
    [
        ("cantor", 4),
        (AffineIFS.load("cantor_dust", d=1), 3),
        ("cantor2d", 3),
        ("sierpinsky", 5),
        ("sierpinski_triangle", 4),
        ("pentaflake_pentagon", 3),
        (AffineIFS.load("cantor_dust", d=3), 2),
        (AffineIFS([0.5 * np.eye(3)] * 2, [[0.5] * 3, [-0.5] * 3]), 3),
    ],
    ids=str,
)
def test_volume_by_monte_carlo(fractal, depth):
    distribution = FractalDistribution(fractal, 6, depth)
    lo, hi = distribution.ifs.base.lo, distribution.ifs.base.hi
    x = np.random.default_rng(0).uniform(lo, hi, (100_000, distribution.d))
    level = distribution.level(x).numpy()
    box = np.prod(hi - lo)
    for j in range(depth + 1):
        share = distribution.volume(j) / box
        error = np.sqrt(share * (1 - share) / len(x))
        assert abs((level >= j).mean() - share) <= 4.5 * error + 1e-12


def test_level_of_known_points():
    cantor = FractalDistribution("cantor", 1, 3)
    x = [[-0.1], [0.5], [0.15], [0.0], [1.0], [1 / 4], [0.04], [1.1]]
    assert cantor.level(x).tolist() == [-1, 0, 1, 3, 3, 3, 2, -1]
    vicsek = FractalDistribution("vicsek", 1, 2)
    # The centre; an edge's middle; near a corner that two images share; a gap of the central image; outside.
    assert vicsek.level([[0, 0], [1, 0], [1 / 3 - 1e-9, 1 / 3 - 1e-9], [0.3, 0], [2, 2]]).tolist() == [2, 0, 2, 1, -1]


@pytest.mark.parametrize("name", ["vicsek", "sierpinski_triangle"])
@pytest.mark.parametrize("balanced", [False, True])
def test_point_i_depends_on_the_seed_and_i_alone(name, balanced):
    distribution = FractalDistribution(name, 4)
    m = 70_001 if name == "vicsek" else 3_001
    before = torch.random.get_rng_state()
    whole = distribution.sample(m, seed=11, balanced=balanced)
    again = FractalDistribution(name, 4).sample(m, seed=11, balanced=balanced)
    cuts = [0, 1, 8, 1_000, 2_501, m]
    pieces = [distribution.sample(b - a, seed=11, balanced=balanced, start=a) for a, b in pairwise(cuts)]
    for part in range(3):
        assert torch.equal(whole[part], again[part])
        assert torch.equal(whole[part], torch.cat([piece[part] for piece in pieces]))
    assert torch.equal(torch.random.get_rng_state(), before)
    other = distribution.sample(m, seed=12, balanced=balanced)
    assert not torch.isin(whole.x[:, 0], other.x[:, 0]).float().mean() > 0.01


def test_whole_numbers_of_any_kind_are_seeds():
    large = 2**60 + 1  # which no float64 is
    seeds: Any = (large, np.int64(large), str(large))
    points = [FractalDistribution("vicsek").sample(5, seed).x for seed in seeds]
    assert torch.equal(points[0], points[1])
    assert torch.equal(points[0], points[2])
    assert not torch.equal(points[0], FractalDistribution("vicsek").sample(5, 2**60).x)


def test_small_cells_of_other_volumes_are_drawn_by_these():
    """One in the other, in six dimensions: volumes of 4e-9 and 7e-10."""
    ifs = AffineIFS([0.04 * np.eye(6), 0.03 * np.eye(6)], np.zeros((2, 6)))
    x, y, _ = FractalDistribution(ifs, 1, 1).sample(20_000)
    inner = (x[y > 0].abs().amax(1) < 0.03).double().mean()
    assert inner == pytest.approx((0.03 / 0.04) ** 6, abs=0.016)  # four standard errors


def test_frozen_points():
    """The sequence of a seed is part of the package's promise: results of other days must be found again."""
    x, y, level = FractalDistribution("vicsek", 4).sample(4, seed=0)
    assert level.tolist() == [3, 6, 5, 6]
    points = [
        [-0.5125659704208374, 0.8610590696334839],
        [0.3182254433631897, 0.17187374830245972],
        [0.39077115058898926, -0.49603530764579773],
        [-0.2779785394668579, -0.2648107409477234],
    ]
    np.testing.assert_array_equal(x.numpy(), np.array(points, dtype=np.float32))
    assert (y > 0).tolist() == [False, True, False, True]


def test_words_are_splitmix64():
    """The reference outputs of SplitMix64 for seed 0, as its author gives them."""
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [w % 2**64 for w in words(0, torch.arange(3)).tolist()] == first
    assert words(2**64 + 5, torch.arange(3)).tolist() == words(5, torch.arange(3)).tolist()
    assert derive(0, 0) != derive(0, 1) != derive(1, 0)


@pytest.mark.parametrize("m", [1, 2, 7, 100_001])
def test_balanced_counts_are_exact(m):
    distribution = FractalDistribution("cantor2d", 4)
    sample = distribution.sample(m, balanced=True)
    assert int((sample.y > 0).sum()) == m // 2
    assert torch.equal(distribution.level(sample.x), sample.level - 1)
    negatives = 2 * distribution.level_probabilities[:-1]
    assert m < 100 or chi_square_p(level_counts(sample, 5)[:-1], negatives) > 1e-4


@pytest.mark.parametrize(
    ("fractal", "depth", "margin"),
    [
        ("cantor", 4, 0.004),
        ("cantor2d", 3, 0.02),
        ("vicsek", 3, 0.03),
        ("sierpinski_triangle", 3, 0.05),
        (SKEWED, 3, 0.004),
        (AffineIFS.load("cantor_dust", d=3), 2, 0.1),
        ("pentaflake_pentagon", 2, 0.117),  # 0.99 of the largest there is
    ],
    ids=str,
)
def test_margin_keeps_balls_around_positives_in_K_n(fractal, depth, margin):
    distribution = FractalDistribution(fractal, 1, depth, margin)
    sample = distribution.sample(4_000, seed=4)
    x = sample.x[sample.y > 0].double()
    directions = torch.randn(400, distribution.d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sphere = margin * (1 - 1e-9) * directions / directions.norm(dim=1, keepdim=True)
    on_balls = (x[:, None] + sphere).reshape(-1, distribution.d)
    assert (distribution.level(on_balls) == depth).all()
    assert chi_square_p(level_counts(sample, depth), distribution.level_probabilities) > 1e-4
    closest = FractalDistribution(fractal, 1, depth).sample(4_000, seed=4)
    outside = closest.x[closest.y > 0].double()[:, None] + sphere
    assert (distribution.level(outside.reshape(-1, distribution.d)) < depth).any()  # the margin did something


def test_margin_leaves_the_uniform_law_on_K_n_gamma():
    """Two maps of unequal size: cells weigh by what the margin leaves of them."""
    ifs = AffineIFS.load("custom", maps=[{"matrix": 0.5, "offset": -0.5}, {"matrix": 0.1, "offset": 0.8}])
    x, y, _ = FractalDistribution(ifs, 1, 1, margin=0.05).sample(40_000)
    share = (x[y > 0] > 0).double().mean().item()
    assert share == pytest.approx(
        0.5 / (0.5 + 0.9), abs=0.01
    )  # of the large cell 0.9/1 is left, of the small one 0.1/0.2


def test_memory_is_bounded_by_the_result():
    code = """
import resource, torch
from fractal_ifs.fractals.distribution import FractalDistribution
torch.set_num_threads(1)
distribution = FractalDistribution("vicsek")
distribution.sample(100_000)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
sample = distribution.sample(8_000_000)
print(peak() - before - sum(t.numel() * t.element_size() for t in sample))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60e6


def test_names_objects_and_mappings_mean_the_same():
    by_name = FractalDistribution("cantor_dust", 4, 3)
    by_object = FractalDistribution(AffineIFS.load("cantor_dust"), ApproximationCurve(degree=5), 3)
    config = {"name": "cantor_dust", "depth": 3, "d": 2, "ratio": "1/3", "corners": "2/3"}
    by_config = FractalDistribution(config, {"name": "4", "degree": 5})
    assert by_config.depth == 3
    for other in (by_object, by_config):
        assert torch.equal(other.sample(100).x, by_name.sample(100).x)
    np.testing.assert_allclose(by_name.approximation_curve(), ApproximationCurve.load(4).P(3))
    assert repr(by_name) == "FractalDistribution('cantor_dust', curve='4', depth=3)"


def test_the_depth_is_the_argument_else_the_files_own_else_the_usual_one(tmp_path):
    keys = {"ratio": "1/3", "offsets": [[-0.5], [0.5]]}
    path = tmp_path / "mine.yaml"
    path.write_text("depth: 3\nratio: 1e-1\noffsets: [[-5e-1], [0.5]]\n")
    for fractal in ({**keys, "depth": 3}, OmegaConf.create({**keys, "depth": 3}), str(path)):
        assert FractalDistribution(fractal).depth == 3
        assert FractalDistribution(fractal, 1, 4).depth == 4
    for fractal in (keys, {**keys, "depth": None}, AffineIFS.from_config({**keys, "depth": 3}), "vicsek"):
        assert FractalDistribution(fractal).depth == DEPTH == 5
    with pytest.raises(ConfigError, match=r"fractal\.depth=2\.5: must be a whole number >= 1"):
        FractalDistribution({**keys, "depth": 2.5})


def test_an_omegaconf_is_read_with_its_interpolations():
    config = OmegaConf.create({"n": 2, "third": "1/3", "fractal": {"depth": "${n}", "offsets": [["${third}"], [-0.5]]}})
    config.fractal.ratio = "${third}"
    distribution = FractalDistribution(config.fractal, OmegaConf.create({"degree": 5}))
    assert distribution.depth == 2
    assert distribution.ifs.offsets.tolist() == [[1 / 3], [-0.5]]
    for value, message in (("???", r"fractal.ratio=\?\?\?: must be given"), ("${nothing}", "fractal: .*nothing")):
        config.fractal.ratio = value
        with pytest.raises(ConfigError, match=message):
            AffineIFS.from_config(config.fractal)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FractalDistribution("vicseq"), "fractal=vicseq: unknown; nearest: vicsek"),
        (lambda: FractalDistribution("vicsek", 9), "curve=9: unknown"),
        (lambda: FractalDistribution("vicsek", 1, 0), "fractal.depth=0: must be a whole number >= 1"),
        (lambda: FractalDistribution("vicsek", 1, True), "fractal.depth=true: must be a whole number >= 1"),
        (lambda: FractalDistribution("vicsek", 1, 10**10), "fractal.depth=10000000000: must be .* and <= 1000000"),
        (
            lambda: FractalDistribution("vicsek", 1, 2**70),
            "fractal.depth=.*: must be a whole number >= 1 and <= 1000000",
        ),
        (lambda: FractalDistribution("vicsek", 2, 2), "curve.last=3: must be at most the fractal's depth, 2"),
        (lambda: FractalDistribution("vicsek", {"weights": [1, 2]}), "curve.weights=.*: must have 5 numbers"),
        (lambda: FractalDistribution("vicsek", margin=0.1), "margin=0.1: must be < 0.004"),
        (lambda: FractalDistribution("sierpinski_triangle", margin=0.1), "margin=0.1: must be < 0.0156"),
        (lambda: FractalDistribution(SKEWED, margin=0.2), "margin=0.2: must be < "),
        (lambda: FractalDistribution("vicsek", margin="wide"), "margin=wide: must be a number"),
        (lambda: FractalDistribution("vicsek").sample(0), "m=0: must be a whole number >= 1"),
        (lambda: FractalDistribution("vicsek").sample(5, seed=-1), "seed=-1: must be a whole number >= 0"),
        (lambda: FractalDistribution("vicsek").sample(5, device="nowhere"), "device=nowhere: must be a device that is"),
        (lambda: FractalDistribution("vicsek").level([0.0, 0.0]), r"x of shape \(2,\): must be of shape \(m, 2\)"),
        (lambda: FractalDistribution("vicsek").volume(6), "j=6: must be a whole number >= 0 and <= 5"),
        (lambda: FractalDistribution(OVERLAPPING).volume(1), "overlap; all that is known is volume <= "),
        (lambda: FractalDistribution(AffineIFS.load("vicsek", ratio=0.4)), "must send K_0 into itself"),
    ],
)
def test_refusals_name_key_value_and_what_is_allowed(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
