"""A fused step as one flat program: the bits of vmap and autograd, and what keeps to those."""

import dataclasses
import sys

import pytest
import torch
from conftest import small
from test_networks_own import FEATURES, SIREN, nets, own  # noqa: F401 (a fixture)
from test_training import same, trained

from fractal_ifs.engines import stack, traced
from fractal_ifs.runs.run import Run

ATTENTION = """
import torch
from torch import nn

class Siren(nn.Module):
    def __init__(self, d, width, depth, *, generator):
        super().__init__()
        shapes = [(2, width)] + [(width, 3 * width)] * depth + [(width, 1)]
        self.layers = nn.ModuleList(nn.Linear(*shape) for shape in shapes)
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=0.3, generator=generator)
            nn.init.normal_(layer.bias, std=0.1, generator=generator)

    def forward(self, x):
        first, *blocks, readout = self.layers
        which = torch.arange(x.shape[-1], dtype=x.dtype).expand_as(x)
        h = first(torch.stack([x, which], -1))
        for block in blocks:
            q, k, v = block(h).chunk(3, -1)
            h = h + torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        return readout(h.mean(-2)).squeeze(-1)
"""
CONVOLUTION = """
import torch
from torch import nn

class Siren(nn.Module):
    def __init__(self, d, width, depth, *, generator):
        super().__init__()
        self.first, self.readout = nn.Conv1d(1, width, 2, padding=1), nn.Linear(width, 1)
        self.norm = nn.GroupNorm(1, width)
        for layer in (self.first, self.readout):
            nn.init.normal_(layer.weight, std=0.3, generator=generator)
            nn.init.normal_(layer.bias, std=0.1, generator=generator)

    def forward(self, x):
        return self.readout(self.norm(self.first(x.unsqueeze(-2))).tanh().amax(-1)).squeeze(-1)
"""
IN_PLACE = SIREN.replace("x = torch.sin(self.omega * layer(x))", "x = layer(x).relu_()")
OWN = {"siren": SIREN, "buffers": FEATURES, "attention": ATTENTION, "convolution": CONVOLUTION, "in place": IN_PLACE}
OURS = {
    "gelu": {"model__activation": "gelu", "model__norm": "layer", "model__skip": "residual", "width": 7},
    "leaky": {"model__activation": "leaky", "model__norm": "layer", "model__skip": "sum", "depth": 3},
    "resmlp": {"model": "resmlp", "model__activation": "tanh", "width": 5},
    "transformer": {"model": "transformer", "width": 6, "depth": 2},
    "doubles": {"model": "resmlp", "trainer__precision": "64-true"},
    "logistic": {"model__activation": "sine", "loss": "logistic", "optimizer": "sgd", "optimizer__momentum": 0.9},
}


def configs_of(kind, nets, count):  # noqa: F811
    keys, name = OURS.get(kind, {}), nets(OWN.get(kind, SIREN))
    configs = [small(seed=seed, fractal="vicsek", steps=40, eval_every=20, **keys) for seed in range(count)]
    if kind in OWN:
        configs = [dataclasses.replace(config, model=own(name)) for config in configs]
    return configs


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        pytest.param(kind, count, marks=[pytest.mark.slow] * (count == 1 and kind != "siren"))
        for kind in (*OWN, *OURS)
        for count in (1, 3)[kind in OURS :]
    ],
)
def test_a_flat_program_has_the_bits_of_vmap(nets, monkeypatch, kind, count):  # noqa: F811
    configs = configs_of(kind, nets, count)
    plain = trained(configs, stack=count)
    monkeypatch.setattr(stack, "LEAST", 0)
    written = stack.Stack([Run(config, None) for config in configs]).flat is not None
    assert written == (kind != "in place")
    for found, expected in zip(trained(configs, stack=count), plain, strict=True):
        same(found, expected)


def test_few_steps_dont_pay_for_it(nets):  # noqa: F811
    [config] = configs_of("siren", nets, 1)
    assert stack.Stack([Run(config, None)]).flat is None
    long = dataclasses.replace(config, steps=stack.LEAST, eval_every=stack.LEAST)
    assert stack.Stack([Run(long, None)]).flat is not None
    paper = small(steps=stack.LEAST, eval_every=stack.LEAST)
    assert stack.Stack([Run(paper, None)]).flat is None  # the MLP, by hand


def squares(weights, x, y):
    return (torch.einsum("mnd,md->mn", x, weights[0]) - y).square().mean(-1)


def inputs(batches: int = 3):
    draw = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(4, 9, 2, generator=draw), torch.randn(4, 9, generator=draw)) for _ in range(batches)]
    return [torch.randn(4, 2, generator=draw)], pairs


def test_losses_and_gradients_are_those_of_autograd():
    [weight], pairs = inputs()
    found = traced.traced(squares, [weight], pairs[:1])
    assert found is not None
    for x, y in pairs:
        each, gradient = found(weight, x, y)
        error = (x * weight[:, None]).sum(-1) - y
        assert torch.allclose(each, error.square().mean(-1))
        assert torch.allclose(gradient, 2 * (error[..., None] * x).mean(1), atol=1e-6)


CALLS = [0]


def counts(weights, x, y):
    CALLS[0] += 1
    return squares(weights, x, y) * CALLS[0]


def branches(weights, x, y):
    return squares(weights, x, y) if x.sum() > 0 else squares(weights, x, -y)


def unused(weights, x, y):
    return (x.sum(-1) - y).square().mean(-1)


def changes(weights, x, y):
    y.add_(1)
    return squares(weights, x, y)


@pytest.mark.parametrize("losses", [counts, branches, unused, changes])
def test_what_is_no_flat_program_is_none(losses):
    weights, pairs = inputs()
    assert traced.traced(losses, weights, pairs) is None


def test_without_the_tool_a_step_is_as_before(nets, monkeypatch):  # noqa: F811
    monkeypatch.setattr(stack, "LEAST", 0)
    monkeypatch.setitem(sys.modules, "torch.fx.experimental.proxy_tensor", None)
    configs = configs_of("siren", nets, 2)
    assert stack.Stack([Run(config, None) for config in configs]).flat is None
    assert trained(configs, stack=2)[0].history[-1].finite


def test_memory_that_runs_out_is_told():
    def full(weights, x, y):
        raise MemoryError

    with pytest.raises(MemoryError):
        traced.traced(full, *inputs())
