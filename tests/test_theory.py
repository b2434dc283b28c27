"""The constructed networks on random IFSs, and the exact integrals on the line against brute force."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fractal_ifs.errors import ConfigError
from fractal_ifs.files import CONF
from fractal_ifs.fractals.cube import CubeIFS, built_width
from fractal_ifs.fractals.ifs import AffineIFS
from fractal_ifs.networks.construction import corollary1_network, theorem1_network
from fractal_ifs.networks.mlp import MLP, mlp
from fractal_ifs.networks.sizes import split
from fractal_ifs.theorems.depths import folded_depth
from fractal_ifs.theorems.fold import CANTOR, fold_network
from fractal_ifs.theorems.keys import Corollary1, Theorem4, Theorem5
from fractal_ifs.theorems.line import along, breakpoints, patterns, regions, sign_changes, stacked
from fractal_ifs.theorems.measure import LineDistribution, best_error, masses_of_pieces
from fractal_ifs.theorems.samples import labelled_points
from fractal_ifs.theorems.statements import STATEMENTS, problems

quick = settings(max_examples=20, derandomize=True)


@st.composite
def systems(draw, dimensions=(1, 2, 3), most=5, least=1):
    """A random IFS under Assumptions 1 and 2: random matrices, each image in its own cell of a grid on a random box."""
    d = draw(st.sampled_from(dimensions))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = 4 if d == 1 else 3
    r = draw(st.integers(least, min(most, grid**d)))
    cells = np.array(list(itertools.product(range(grid), repeat=d)))[rng.permutation(grid**d)[:r]]
    low, side = rng.normal(size=d), rng.uniform(0.5, 3) * np.ones(d)
    matrices, offsets = [], []
    for cell in cells:
        turn = np.linalg.qr(rng.normal(size=(d, d)))[0] * rng.uniform(0.5, 1, d)
        turn *= rng.uniform(0.5, 0.9) / (grid * np.abs(turn).sum(1).max())
        matrices.append(turn)
        offsets.append((cell + 0.5) / grid - turn.sum(1) / 2)
    return CubeIFS(np.array(matrices), np.array(offsets), low, side)


def wrong(model, ifs, n, gamma, count=3000, seed=0):
    x, y, _ = labelled_points(ifs, n, gamma, count, np.random.default_rng(seed), hard=True)
    with torch.no_grad():
        return int((model(torch.from_numpy(x)).numpy() * y <= 0).sum())


@quick
@given(systems(), st.integers(1, 4))
def test_theorem_1_on_random_systems(ifs, n):
    gamma = ifs.margin(n, None)
    model = theorem1_network(ifs, n, gamma)
    assert model.depth + 1 == 2 * n + 1
    assert model.width <= built_width(ifs, 1, n) <= 5 * ifs.d * ifs.r
    assert wrong(model, ifs, n, gamma) == 0


@quick
@given(systems(most=3), st.integers(1, 5), st.integers(1, 3))
def test_corollary_1_on_random_systems(ifs, n, s):
    s = min(s, n)
    gamma = ifs.margin(n, None)
    model = corollary1_network(ifs, n, s, gamma)
    assert model.width <= built_width(ifs, s, n) <= 5 * ifs.d * ifs.r**s
    assert model.width == built_width(ifs, s, n) or s < n
    assert model.depth + 1 <= 2 * -(-n // s) + 1
    if ifs.d == 1 or n % s == 0:
        assert model.depth + 1 <= 2 * (n // s) + 2
    assert wrong(model, ifs, n, gamma) == 0


def test_a_wrong_margin_or_depth_is_noticed():
    """The check can fail: a network for another depth errs on K_n's points."""
    gamma = CANTOR.margin(4, None)
    assert wrong(theorem1_network(CANTOR, 3, gamma), CANTOR, 4, gamma) > 0
    assert wrong(theorem1_network(CANTOR, 5, CANTOR.margin(5, None)), CANTOR, 4, gamma) > 0


@pytest.mark.parametrize(("name", "keys", "d"), [("cantor", {}, 1), ("cantor2d", {}, 2), ("cantor_dust", {"d": 3}, 3)])
def test_theorem_1_to_depth_8(name, keys, d):
    ifs = CubeIFS.of(AffineIFS.load(name, **keys))
    gamma = ifs.margin(8, None)
    model = theorem1_network(ifs, 8, gamma)
    assert (ifs.d, model.depth) == (d, 16)
    assert model.width == 4 * d * ifs.r + d + 1
    assert wrong(model, ifs, 8, gamma, 20_000) == 0


def test_points_agree_with_membership_by_inversion():
    ifs = CubeIFS.of(AffineIFS.load("cantor2d"))
    x, y, level = labelled_points(ifs, 3, 0.001, 4000, np.random.default_rng(1), hard=True)
    u, inside = (x - ifs.low) / ifs.side, np.ones(len(x), int)
    reached = ((u >= 0) & (u <= 1)).all(1).astype(int)
    for _ in range(3):
        moved = [(u - v) @ np.linalg.inv(m).T for m, v in zip(ifs.matrices, ifs.offsets, strict=True)]
        hit = np.stack([((w >= 0) & (w <= 1)).all(1) for w in moved])
        reached += hit.any(0) & (reached > 0) & (reached == inside)
        inside += 1
        u = np.choose(hit.argmax(0)[:, None], moved)
    assert ((reached == 4) == (y == 1)).all()
    assert (reached[y == -1] <= level[y == -1]).all()


@pytest.mark.parametrize(("factor", "works"), [(1.0, False), (0.9, True)])
def test_touching_cells_are_named_and_can_be_shrunk(factor, works):
    ifs = CubeIFS.of(AffineIFS.load("vicsek")).shrunk(factor)
    if works:
        assert wrong(theorem1_network(ifs, 3, ifs.margin(3, None)), ifs, 3, ifs.margin(3, None)) == 0
    else:
        with pytest.raises(ConfigError, match="Assumption 1 fails, 4 pairs"):
            theorem1_network(ifs, 3, 0.001)


def test_what_is_outside_the_hypotheses_is_refused():
    with pytest.raises(ConfigError, match="Assumption 2"):
        CubeIFS.from_box([[[0.5]]], [[0.7]], [0], [1])
    with pytest.raises(
        ConfigError, match=r"maps\[0\].matrix=\[\[0.85, 0.3333\], \[0.255, -0.1\]\]: .* K_0's box .* 1.20208"
    ):
        CubeIFS.from_box([[[0.85, 0.3333], [0.255, -0.1]]], [[0, 0]], [-1, -0.3], [1, 0.3])
    with pytest.raises(ConfigError, match=r"maps\[0\].matrix=\[\[0.0\]\]: must have full rank"):
        CubeIFS.from_box([[[0.0]]], [[0.5]], [0], [1])
    with pytest.raises(ConfigError, match="needs a box as K0"):
        CubeIFS.of(AffineIFS.load("sierpinski_triangle"))
    with pytest.raises(ConfigError, match="float64"):
        CANTOR.margin(40, None)
    with pytest.raises(ConfigError, match="Assumption 3"):
        CANTOR.margin(3, 0.5)
    with pytest.raises(ConfigError, match="s <= n"):
        split(3, 4)
    with pytest.raises(ConfigError, match="too wide"):
        corollary1_network(CubeIFS.of(AffineIFS.load("cantor2d")), 8, 6, 1e-5)
    with pytest.raises(ConfigError, match="fractal=cantor_dust: width 5 d r = 10240 is too wide to build"):
        theorem1_network(CubeIFS.of(AffineIFS.load("cantor_dust", d=8)), 1, 1e-5)
    with pytest.raises(ConfigError, match="must have d=1"):
        LineDistribution(CubeIFS.of(AffineIFS.load("cantor2d")), np.array([0.5, 0.5]))


def test_distances_of_turned_images():
    turned = np.array([[0.2, -0.2], [0.2, 0.2]])  # a diamond with its lowest corner at the offset
    ifs = CubeIFS(np.array([0.25 * np.eye(2), turned]), np.array([[0, 0], [0.5, 0.5]]), np.zeros(2), np.ones(2))
    corner = np.array(
        [0.5 - 0.25, 0.5 - 0.25]
    )  # nearest points lie on the square's corner and the diamond's left-lower edge
    assert ifs.epsilon == pytest.approx(abs(corner.sum()) / np.sqrt(2), abs=1e-9)


# On the line


def brute(ifs: CubeIFS, law: np.ndarray, gamma: float):
    """Every interval with uniform mass: (left, right, mass of -, mass of +), by listing all cells."""
    n, found = len(law) - 1, []
    images = np.sort(np.stack([ifs.offsets[:, 0], ifs.offsets[:, 0] + ifs.matrices[:, 0, 0]], 1), 1)
    images = images[np.argsort(images[:, 0])]
    gaps = np.stack([np.append(0, images[:, 1]), np.append(images[:, 0], 1)], 1)
    for j in range(n + 1):
        words = ifs.words(j)
        for m, v in zip(words.matrices[:, 0, 0], words.offsets[:, 0], strict=True):
            if j < n:
                for a, b in gaps:
                    ends = sorted([v + m * a, v + m * b])
                    share = (b - a) / (gaps[:, 1] - gaps[:, 0]).sum()
                    found.append((*ends, law[j] * share / ifs.r**j, 0.0))
            else:
                inset = gamma / ifs.side[0]
                found.append((min(v, v + m) + inset, max(v, v + m) - inset, 0.0, law[n] / ifs.r**n))
    table = np.array(found)
    table[:, :2] = ifs.low[0] + ifs.side[0] * table[:, :2]
    return table


laws = st.integers(0, 10**6).map(lambda s: np.random.default_rng(s).dirichlet(np.ones(4)))


@quick
@given(systems(dimensions=(1,), most=3), laws, st.integers(0, 10**6))
def test_masses_left_of_x_equal_the_sum_over_all_cells(ifs, law, seed):
    gamma = ifs.inradius(3) / 3
    distribution, table = LineDistribution(ifs, law, gamma), brute(ifs, law, gamma)
    x = np.random.default_rng(seed).uniform(distribution.low - 0.1, distribution.high + 0.1, 40)
    mass, moment = distribution.cumulative(x)
    end = np.clip(x[:, None], table[:, 0], table[:, 1])
    density = table[:, 2:].T / np.maximum(table[:, 1] - table[:, 0], 1e-300)
    lengths, firsts = end - table[:, 0], (end**2 - table[:, 0] ** 2) / 2
    np.testing.assert_allclose(mass, np.einsum("lc,xc->lx", density, lengths), atol=1e-10)
    np.testing.assert_allclose(moment, np.einsum("lc,xc->lx", density, firsts), atol=1e-10)


def networks(count, width, depth, d=1, init="pytorch"):
    return [
        MLP(d, width, depth, init, generator=torch.Generator().manual_seed(s), dtype=torch.float64)
        for s in range(count)
    ]


@quick
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 10**6))
def test_regions_equal_brute_force(width, depth, seed):
    model = MLP(1, width, depth, "pytorch", generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    parameters = stacked([model])
    x = breakpoints(parameters, -3.0, 3.0)[0]
    dense = torch.linspace(-3, 3, 20_001, dtype=torch.float64)
    on = patterns(parameters, dense[None, :, None])[0]
    changes = (on[1:] != on[:-1]).any(1).nonzero()[:, 0]
    # every change seen on the grid lies at a breakpoint; the grid misses only pieces thinner than its step
    inner = x[1:-1]
    for at in changes:
        assert ((inner >= dense[at] - 1e-9) & (inner <= dense[at + 1] + 1e-9)).any()
    exact, seen = int(regions(parameters, -3.0, 3.0)), len(changes) + 1
    thin = int((torch.diff(torch.cat([inner, torch.tensor([3.0], dtype=torch.float64)])) < 6.1e-4).sum())
    assert seen <= exact <= seen + 2 * thin


def test_a_line_through_the_plane_is_a_network_of_one_variable():
    parameters = stacked(networks(3, 8, 3, d=2))
    start, direction = torch.rand(3, 2, dtype=torch.float64), torch.rand(3, 2, dtype=torch.float64)
    s = torch.linspace(-2, 2, 9, dtype=torch.float64).expand(3, 9)
    on_line = mlp(along(parameters, start, direction), s.unsqueeze(-1))
    direct = mlp(parameters, start.unsqueeze(1) + s.unsqueeze(-1) * direction.unsqueeze(1))
    torch.testing.assert_close(on_line, direct)


@quick
@given(systems(dimensions=(1,), most=3, least=2), laws, st.integers(1, 3))
def test_exact_gradient_loss_and_error_equal_a_dense_sample(ifs, law, depth):
    gamma = ifs.inradius(3) / 3
    distribution = LineDistribution(ifs, law, gamma)
    models = networks(4, 6, depth)
    for model in models:  # past the hinge in places
        with torch.no_grad():
            list(model.parameters())[-2].mul_(20)
    parameters = stacked(models)
    loss, gradient = distribution.loss_and_gradient(parameters)

    table = brute(ifs, law, gamma)
    grid = (np.arange(200) + 0.5) / 200  # midpoints on every interval of constant density
    x = torch.from_numpy((table[:, :1] + (table[:, 1:2] - table[:, :1]) * grid).reshape(-1))
    weight = torch.from_numpy(np.repeat(table[:, 2:] / 200, 200, axis=0))
    leaves = [p.clone().requires_grad_() for p in parameters]
    f = mlp(leaves, x.expand(4, -1).unsqueeze(-1))
    dense = (weight[:, 0] * (1 + f).clamp(min=0) + weight[:, 1] * (1 - f).clamp(min=0)).sum(1)
    torch.testing.assert_close(loss, dense.detach(), atol=1e-5, rtol=1e-4)
    for exact, sampled in zip(gradient, torch.autograd.grad(dense.sum(), leaves), strict=True):
        torch.testing.assert_close(exact, sampled, atol=2e-2, rtol=1e-2)
    error = (weight[:, 0] * (f >= 0) + weight[:, 1] * (f <= 0)).sum(1).detach().numpy()
    np.testing.assert_allclose(distribution.error(parameters), error, atol=5e-3)


def test_exact_gradient_equals_finite_differences():
    distribution = LineDistribution(CANTOR, np.array([0.1, 0.15, 0.25, 0.5]), 0.005)
    model = networks(1, 5, 2)[0]
    parameters = [p.contiguous() for p in stacked([model])]
    _, gradient = distribution.loss_and_gradient(parameters)
    for p, g in zip(parameters, gradient, strict=True):
        for at in range(0, p.numel(), 3):
            moved = []
            for step in (1e-5, -1e-5):
                p.view(-1)[at] += step
                moved.append(float(distribution.loss_and_gradient(parameters)[0]))
                p.view(-1)[at] -= step
            assert (moved[0] - moved[1]) / 2e-5 == pytest.approx(float(g.reshape(-1)[at]), abs=1e-6)


@quick
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_best_error_equals_enumeration(count, seed):
    masses = np.random.default_rng(seed).random((2, count))
    found = best_error(masses, count)
    for changes in range(count + 1):
        least = min(
            sum(masses[0 if sign else 1, i] for i, sign in enumerate(signs))
            for signs in itertools.product([0, 1], repeat=count)
            if sum(a != b for a, b in itertools.pairwise(signs)) <= changes
        )
        assert found[changes] == pytest.approx(least)


@pytest.mark.parametrize("t", [2, 3, 4])
def test_the_folded_network_realises_the_cantor_set_exactly(t):
    n = folded_depth(t)
    distribution = LineDistribution(CANTOR, np.append(np.full(n, 0.5 / n), 0.5))
    model = fold_network(t)
    assert (model.depth + 1, model.width) == (t, 8)
    assert distribution.error(stacked([model]))[0] < 1e-11
    assert int(sign_changes(stacked([model]), -1.0, 2.0)) == 2 ** (n + 1)
    assert masses_of_pieces(distribution).shape == (2, 2 ** (n + 1) - 1)


# The keys of conf/theory.yaml


def plain_config():
    """The keys that the command has where nothing is given."""
    config = yaml.safe_load((CONF / "theory.yaml").read_text())
    groups = {
        group: yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
        for group, name in (("fractal", "cantor2d_quarter"), ("curve", "1"))
    }
    return {name: value for name, value in config.items() if name not in ("defaults", "hydra")} | groups


NOT_WHOLE = ("x", None, 2.7, True, [3], 0, -1)
NOT_A_NUMBER = ("x", None, True, float("nan"), [0.1])
NOT_A_LIST = ("x", None, 1, [], {}, [None], [[1]])
NOT_NETWORKS = ("x", None, 5, [], [5], [[5]], [[5, 3, 1]], [[5, 1]], [[0, 3]], [[5, 2.5]], [["x", 3]])
NOT_BIASES = (*NOT_A_LIST, 0.5, ["x"], [0], [0.7], [0.5, -0.1])
NOT_CURVES = ("1", 1, None, [None], [1.5], [["1"]], [True], ["9"], ["weights"], ["no.yaml"])
BAD = {
    "statement": ("x", None, 3, [], ["theorem1", "x"], [["theorem1"]], {}),
    "shrink": (*NOT_A_NUMBER, 0, -1, 1.1),
    "margin": ("x", True, float("inf"), [0.1], 0, -1),
    "points": NOT_WHOLE,
    "seed": ("x", None, 2.7, True, [3], -1, 2**64),
    "threads": (*NOT_WHOLE, 10**9),
    "figures": ("x", None, 1, "yes", [True]),
    "formats": ("x", "jpg", None, 3, [], ["png", "jpg"]),
    "width": ("x", True, 0, -1, 41, [3]),
    "font": ("x", True, 0, -1, 41, [8]),
    "dpi": (*NOT_WHOLE, 10**6),
    "fractal": ("x", None, 3),
    "curve": ("x", None, 3),
    "corollary1": ("x", None, 3, [1]),
    "corollary1.points": NOT_WHOLE,
    "corollary1.s": ("x", 1, [], [None], [[1]], ["x"], [1.5], [0], [True], [1, 6], [5]),
    "theorem2": ("x", None, 3, [1]),
    "theorem2.width": NOT_WHOLE,
    "theorem2.depth": NOT_WHOLE,
    "theorem2.lines": NOT_WHOLE,
    "theorem2.train_steps": NOT_WHOLE,
    "theorem3": ("x", None, 3, [1]),
    "theorem3.width": NOT_WHOLE,
    "theorem3.train_steps": NOT_WHOLE,
    "theorem4": ("x", None, 3, [1]),
    "theorem4.n": NOT_WHOLE,
    "theorem4.networks": NOT_NETWORKS,
    "theorem4.curves": (*NOT_CURVES, ["own"]),
    "theorem4.train_steps": NOT_WHOLE,
    "theorem5": ("x", None, 3, [1]),
    "theorem5.n": (*NOT_WHOLE, 1, 31),
    "theorem5.delta": (*NOT_A_NUMBER, 0, 1, -0.1),
    "theorem5.networks": NOT_NETWORKS,
    "theorem5.biases": NOT_BIASES,
    "theorem5.curves": (*NOT_CURVES, []),
    "theorem5.initialisations": NOT_WHOLE,
    "corollary2": ("x", None, 3, [1]),
    "corollary2.width": (*NOT_WHOLE, 9, 100, 10**200),
    "corollary2.delta": (*NOT_A_NUMBER, 0, 1, -0.1),
    "corollary2.biases": NOT_BIASES,
    "corollary2.initialisations": NOT_WHOLE,
    "corollary2.train_steps": NOT_WHOLE,
    "corollary3": ("x", None, 3, [1]),
    "corollary3.width": NOT_WHOLE,
    "corollary3.t": (*NOT_WHOLE, 1, "none"),
    "corollary3.delta": (*NOT_A_NUMBER, 0, 1, -0.1),
    "corollary3.n": (*NOT_WHOLE, 31),
    "corollary3.biases": NOT_BIASES,
    "corollary3.curves": (*NOT_CURVES, [], ["own"]),
    "corollary3.initialisations": NOT_WHOLE,
    "conjecture1": ("x", None, 3, [1]),
    "conjecture1.systems": (*NOT_WHOLE, 5),
    "conjecture1.width": NOT_WHOLE,
    "conjecture1.shallow": NOT_WHOLE,
    "conjecture1.deep": NOT_WHOLE,
    "conjecture1.steps": NOT_WHOLE,
    "conjecture1.lrs": (*NOT_A_LIST, 0.1, ["x"], [0], [0.1, -1]),
    "conjecture1.seeds": NOT_WHOLE,
    "conjecture1.train_size": (*NOT_WHOLE, 99),
}


def test_every_key_has_bad_values():
    config = plain_config()
    sections = {name: value for name, value in config.items() if name in STATEMENTS}
    assert set(BAD) == set(config) | {f"{name}.{key}" for name, section in sections.items() for key in section}


@pytest.mark.parametrize("key", BAD)
def test_a_bad_value_is_refused_in_one_line_whatever_is_asked_for(key):
    for value in BAD[key]:
        config = plain_config()
        *section, name = key.split(".")
        (config[section[0]] if section else config)[name] = value
        with pytest.raises(ConfigError) as told:
            problems(config)
        message = str(told.value)
        assert message.startswith((f"{key}=", f"{key}.")), message
        assert "must be" in message or "must have" in message, message
        assert "\n" not in message


@pytest.mark.parametrize("name", [None, *(name for name in plain_config() if name in STATEMENTS)])
def test_an_unknown_and_a_missing_key_are_refused(name):
    config = plain_config()
    section, prefix = (config[name], f"{name}.") if name else (config, "")
    section["nonsense"] = 1
    with pytest.raises(ConfigError, match=f"{prefix}nonsense=1: there is no such key"):
        problems(config)
    del section["nonsense"]
    for key in list(section):
        if key in STATEMENTS:
            continue
        value = section.pop(key)
        with pytest.raises(ConfigError, match=f"{prefix}{key}: must be given"):
            problems(config)
        section[key] = value


def test_the_values_of_conf_and_some_others_are_taken():
    keys, asked = problems(plain_config())
    assert [name for name, _ in asked] == [name for name in STATEMENTS if name != "conjecture1"]
    assert asked[1][1].points == 200_000
    assert asked[0][1].points == keys.points == 1_000_000
    changes = {"shrink": "9/10", "margin": "1e-4", "statement": ["theorem4", "theorem5", "corollary1"], "seed": 0}
    config = plain_config() | changes
    config["theorem4"] |= {"curves": []}
    config["theorem5"] |= {"curves": [1, "own"], "biases": ["1/2"], "delta": 0.5}
    config["corollary1"] |= {"s": [2]}
    _, [(_, fourth), (_, fifth), (_, first)] = problems(config)
    assert isinstance(fourth.settings, Theorem4)
    assert isinstance(fifth.settings, Theorem5)
    assert isinstance(first.settings, Corollary1)
    assert fourth.settings.curve_names == []
    assert fifth.settings.curves == (1, "own")
    assert fifth.settings.curve_names == ["1"]
    assert fifth.settings.biases == (0.5,)
    assert first.settings.s == (2,)
    assert first.gamma == 1e-4


def test_theorem_4_is_refused_before_anything_is_computed_and_takes_the_margin_where_it_is_alone():
    three = {"ratio": 0.3, "offsets": [[-0.7], [0], [0.7]]}
    with pytest.raises(ConfigError, match=r"theorem4\.n=14: must be <= 12, else custom has more than 1,048,576 cells"):
        problems(plain_config() | {"fractal": three, "statement": "theorem4"})
    every = dict(problems(plain_config() | {"fractal": three, "statement": ["theorem1", "theorem4"]})[1])
    assert (every["theorem1"].ifs.r, every["theorem4"].ifs.name) == (3, "cantor")
    line = plain_config() | {"fractal": {"ratio": 0.3, "offsets": [[-0.7], [0.7]]}, "statement": "theorem4"}
    with pytest.raises(ConfigError, match=r"margin=0.9: must be in .*Assumption 3"):
        problems(line | {"margin": 0.9})
    assert problems(line | {"margin": 1e-9})[1][0][1].gamma == 1e-9
    line["fractal"]["ratio"] = 0.02
    with pytest.raises(ConfigError, match=r"theorem4\.n=14: the cells of K_n have inradius"):
        problems(line)


def test_a_curve_level_by_level_is_for_the_fractals_own_depth():
    """The Cantor set of Section 4 has another: a statement about it takes its first curve, if it has one."""
    config = plain_config() | {"curve": {"name": "mine", "weights": [1, 2, 3, 4, 5]}}
    assert {name: problem.curve.name for name, problem in problems(config)[1]} == {
        **dict.fromkeys(("theorem1", "corollary1", "theorem2", "theorem3", "corollary2"), "mine"),
        **{"theorem4": "4", "theorem5": "1", "corollary3": "1"},
    }
    config["theorem4"]["curves"] = []
    with pytest.raises(ConfigError, match=r"curve\.weights"):
        problems(config)


@pytest.mark.parametrize(
    ("statement", "words", "said"),
    [
        ("theorem5", ["fractal=vicsek"], "fractal=vicsek: theorem5 doesn't read fractal: it is about the Cantor set"),
        ("theorem5", ["fractal=cantor", "fractal.depth=3"], "fractal.depth=3: theorem5 doesn't read fractal.depth: "),
        ("theorem5", ["curve=5"], "curve=5: theorem5 doesn't read curve: its curves are theorem5.curves, where own is"),
        ("corollary3", ["curve=5"], "curve=5: corollary3 doesn't read curve: its curves are corollary3.curves"),
        ("corollary2", ["margin=0.1"], "margin=0.1: corollary2 doesn't read margin: it has a margin of its own"),
        ("theorem4", ["+fractal.depth=3"], "+fractal.depth=3: theorem4 doesn't read fractal.depth: its depth is theor"),
        ("conjecture1", ["shrink=0.9"], "shrink=0.9: conjecture1 doesn't read shrink: it draws its own"),
        ("theorem1", ["curve=5"], "curve=5: theorem1 doesn't read curve: its network is right for every curve"),
        ("theorem1", ["points=9", "theorem5.n=4"], "theorem5.n=4: theorem5 isn't among the statements asked for, theo"),
        (
            ["corollary2", "theorem5"],
            ["shrink=0.9"],
            "shrink=0.9: corollary2 doesn't read shrink, and none of corollary2, theorem5 does: it is about the Cantor",
        ),
    ],
)
def test_a_word_that_no_statement_reads_is_refused(statement, words, said):
    """The checks would be of another fractal or curve than the command says."""
    with pytest.raises(ConfigError) as error:
        problems(plain_config() | {"statement": statement}, words)
    assert str(error.value).startswith(said)
    problems(plain_config(), [word for word in words if word != "theorem5.n=4"])  # all of them: some read it


def test_the_words_of_a_statement_are_read():
    problems(plain_config() | {"statement": "corollary2", "curve": {"name": "6", "last": 9}})  # of a file of one's own
    words = ["statement=theorem5", "fractal=cantor", "theorem5.n=20", "seed=1", "theorem5.curves=[own]", "curve=5"]
    own: dict[str, Any] = plain_config() | {"statement": "theorem5"}
    own["theorem5"] |= {"curves": ["own"]}
    problems(own, words)
    with pytest.raises(ConfigError, match=r"^curve\.weights=\[1,2\]: must have 14 numbers"):
        problems(plain_config() | {"statement": "theorem4", "curve": {"name": "mine", "weights": [1, 2]}})
