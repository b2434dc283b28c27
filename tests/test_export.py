"""Networks out of a run: in files of torch and ONNX, and what they say of points."""

import io
import logging
import subprocess
import sys
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small

import fractal_ifs
from fractal_ifs import ConfigError, load, predict
from fractal_ifs import __main__ as verbs
from fractal_ifs.config.run import Job
from fractal_ifs.networks.convnet import ConvNet
from fractal_ifs.networks.export import exported
from fractal_ifs.predictions import predictions
from fractal_ifs.runs.records import RunRecord
from fractal_ifs.sweeps.sweep import train_jobs

X = torch.linspace(-1, 1, 26).reshape(13, 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run whose best network isn't its last."""
    directory = tmp_path_factory.mktemp("run")
    [record] = train_jobs([Job(small(lr=0.05, steps=200, eval_every=20, depth=2), directory)])
    assert isinstance(record, RunRecord)
    assert record.best_step != record.steps
    return directory


def called(monkeypatch, capsys, *words):
    """A command of ``fractal-ifs``: its exit status, and what it prints."""
    monkeypatch.setattr(sys, "argv", ["fractal-ifs", *map(str, words)])
    try:
        verbs.main()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else str(error.code)
    return status, capsys.readouterr().out


def run_exported(path, to, x):
    """The outputs of an exported network."""
    if to == "torch_export":
        return torch.export.load(path).module()(x)
    if to == "torchscript":
        with pytest.warns(DeprecationWarning, match="deprecated"):
            return torch.jit.load(path)(x)
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    onnx.checker.check_model(onnx.load(path))
    return torch.tensor(reference.ReferenceEvaluator(str(path)).run(None, {"x": x.numpy()})[0])


@pytest.mark.parametrize("to", ["torch_export", "torchscript", "onnx"])
def test_an_exported_network_says_the_same(run, to, tmp_path, monkeypatch, capsys):
    if to == "onnx":
        pytest.importorskip("onnxscript")
    for best in (False, True):
        path = tmp_path / f"network{best}.bin"
        status, out = called(monkeypatch, capsys, "export", run, "--format", to, "-o", path, *["--best"] * best)
        found = load(run, best=best)
        which = "best" if best else "last"
        assert status == 0
        assert out == f"{path}: the {which} network, of step {found.step}, test accuracy {found.accuracy:.4f}\n"
        for x in (X, X[:1], torch.zeros(0, 2), X.repeat(50, 1)):
            expected = found.model(x).detach()
            torch.testing.assert_close(run_exported(path, to, x).detach(), expected, rtol=0, atol=1e-5)


def test_onnx_says_nothing_of_packages_that_no_network_needs(run, caplog):
    pytest.importorskip("onnxscript")
    torch_onnx = logging.getLogger("torch.onnx")
    before = torch_onnx.level
    torch_onnx.addHandler(caplog.handler)  # torch's own handlers keep it from the root
    try:
        exported(load(run).model, X, "onnx")
    finally:
        torch_onnx.removeHandler(caplog.handler)
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []
    assert torch_onnx.level == before


def test_a_state_dict_is_plain(run, tmp_path, monkeypatch, capsys):
    path = tmp_path / "weights.pt"
    assert called(monkeypatch, capsys, "export", run, "--format", "state_dict", "-o", path)[0] == 0
    network = load(run, best=True).model
    network.load_state_dict(torch.load(path, weights_only=True))
    torch.testing.assert_close(network(X), load(run).model(X), rtol=0, atol=0)


def test_a_cnn_is_exported_too():
    network, x = ConvNet(3, 4), torch.randn(5, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    content = exported(network, torch.zeros(2, 3, 24, 24), "torch_export")
    torch.testing.assert_close(torch.export.load(io.BytesIO(content)).module()(x), network(x), rtol=0, atol=1e-5)


def test_what_torch_cannot_export_is_told_in_a_line():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return x.sum(1) if float(x.sum()) > 0 else x.prod(1)

    with pytest.raises(ConfigError, match="--format torch_export: torch can't export this network: ") as error:
        exported(Odd(), X, "torch_export")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "-o", "x.pt2"], "run=nowhere: there is no such directory"),
        (["RUN", "-o", "x.h5"], "-o x.h5: must end with .pt2 or .onnx, or stand beside --format torch_export|onnx|"),
        (["RUN", "-o", "nowhere/x.pt2"], "nowhere/x.pt2: No such file or directory"),
    ],
)
def test_an_export_is_refused_in_a_line(run, words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _ = called(monkeypatch, capsys, "export", *(run if word == "RUN" else word for word in words))
    assert str(status).startswith(f"error: {said}")
    assert "\n" not in str(status)
    assert not list(tmp_path.iterdir())


HEADS = {"without a head": "", "with a head": "a,b\n", "with a mark of its encoding": "\ufeffa,b\n"}


@pytest.mark.parametrize("head", HEADS)
def test_points_of_a_file_are_told_apart(run, head, tmp_path, monkeypatch, capsys):
    path, out = tmp_path / "points.csv", tmp_path / "out.csv"
    path.write_text(HEADS[head] + "".join(f" {a}, {b}\n\n" for a, b in X.tolist()), encoding="utf-8")
    for best in (False, True):
        assert called(monkeypatch, capsys, "predict", run, path, "-o", out, *["--best"] * best) == (0, "")
        table = pd.read_csv(out)
        assert list(table.columns) == [*(["x1", "x2"] if not HEADS[head] else ["a", "b"]), "f", "sign"]
        f = load(run, best=best).model(X).detach().numpy()
        np.testing.assert_array_equal(table.f.to_numpy(np.float32), f)
        np.testing.assert_array_equal(table.sign, np.where(f > 0, 1, -1))
        np.testing.assert_array_equal(table.iloc[:, :2].to_numpy(np.float32), X)


def test_points_of_standard_input(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\ufeff0.5,-0.25\n1e-3,1\n"))
    status, out = called(monkeypatch, capsys, "predict", run, "-")
    assert status == 0
    assert [line.split(",")[:2] for line in out.splitlines()] == [["x1", "x2"], ["0.5", "-0.25"], ["1e-3", "1"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1,2\n3\n", "line 2 must be 2 finite numbers with commas between them, not 3"),
        ("1;2\n", "line 1 must be 2 finite numbers with commas between them, not 1;2"),
        ("1/2,.5f\n1,2\n", "line 1 must be 2 finite numbers with commas between them, not 1/2,.5f"),
        ("a,b\n1,nan\n", "line 2 must be 2 finite numbers with commas between them, not 1,nan"),
        ("1,2,3\n", "line 1 must be 2 finite"),
        ("1_0,2_0\n1,2\n", "line 1 must be 2 finite"),
        ("f,x\n1,2\n", "line 1 must name no column f or sign: the output has these"),
        ("x,y\n", "has no points"),
        ("", "has no points"),
        ('"1\n', "line"),
        (b"\xff\xfe1,2", "can't be read as CSV"),
    ],
)
def test_what_is_no_point_is_refused_and_nothing_is_written(run, content, said, tmp_path, monkeypatch, capsys):
    path = tmp_path / "points.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    status, out = called(monkeypatch, capsys, "predict", run, path, "-o", tmp_path / "out.csv")
    assert str(status).startswith(f"error: {path}: ")
    assert said in str(status)
    assert "\n" not in str(status)
    assert out == ""
    assert not (tmp_path / "out.csv").exists()


def test_a_file_that_cant_be_written_is_told_by_the_name_that_was_asked_for(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "points.csv").write_text("1,2\n")
    status, _ = called(monkeypatch, capsys, "predict", run, tmp_path / "points.csv", "-o", tmp_path)
    assert str(status) == f"error: {tmp_path}: Is a directory"


def test_no_output_takes_the_place_of_a_file_of_a_run_or_of_its_input(run, tmp_path, monkeypatch, capsys):
    points = tmp_path / "points.csv"
    points.write_text("1,2\n")
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for name in ("result.json", "history.csv", "checkpoint.pt"):
        for words in (["predict", run, points], ["export", run, "--format", "state_dict"]):
            status, _ = called(monkeypatch, capsys, *words, "-o", run / name)
            assert str(status) == f"error: -o {run / name}: must be another file: this one is part of a run or a sweep"
    (tmp_path / "again.csv").symlink_to(points)
    for path in (points, tmp_path / "again.csv"):
        status, _ = called(monkeypatch, capsys, "predict", run, points, "-o", path)
        assert str(status) == f"error: -o {path}: must be another file than POINTS, which it would replace"
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    assert points.read_text() == "1,2\n"
    hydra = tmp_path / ".hydra" / "config.yaml"
    hydra.parent.mkdir()
    hydra.touch()
    assert "this one is part of a run or a sweep" in str(
        called(monkeypatch, capsys, "predict", run, points, "-o", hydra)[0]
    )
    hydra.unlink()
    hydra.parent.rmdir()
    (tmp_path / "results.csv").touch()  # of a sweep only beside its config
    for name, refused in (("none.yaml", False), ("multirun.yaml", True)):
        (tmp_path / name).touch()
        status, _ = called(monkeypatch, capsys, "predict", run, points, "-o", tmp_path / "results.csv")
        assert ("this one is part of a run or a sweep" in str(status)) == refused
    (tmp_path / "multirun.yaml").unlink()
    assert called(monkeypatch, capsys, "predict", run, points, "-o", tmp_path / "history.csv")[0] == 0
    assert called(monkeypatch, capsys, "predict", run, points, "-o", tmp_path / "history.csv")[0] == 0


def test_predict_takes_a_run_a_network_and_points_of_any_kind(run):
    found = load(run)
    f = found.model(X).detach().numpy()
    for network in (run, str(run), found, found.model):
        for x in (X, X.numpy(), X.tolist(), pd.DataFrame(X.numpy(), columns=["a", "b"])):
            np.testing.assert_array_equal(predict(network, x), f)
    np.testing.assert_array_equal(predict(run, X, best=True), load(run, best=True).model(X).detach().numpy())
    assert predict(run, np.zeros((0, 2))).shape == (0,)
    np.testing.assert_array_equal(predict(torch.nn.Flatten(0), X[:, :1]), X[:, 0])  # without parameters


@pytest.mark.parametrize(
    ("x", "said"),
    [
        ([[1.0, 2.0, 3.0]], r"x: must have the shape \(n, 2\), not \(1, 3\)"),
        ([1.0, 2.0], r"x: must have the shape \(n, 2\), not \(2,\)"),
        ([["a", "b"]], "x: must be points"),
        ([[1j, 2.0]], "x: must be points .n, d., real numbers only"),
        (torch.ones(1, 2, dtype=torch.complex64), "real numbers"),
        ([[1.0, 2.0], [3.0]], "real numbers"),
        ([[10**400, 1]], "real numbers"),
        ([[1.0, float("inf")]], "x: must be finite numbers"),
    ],
)
def test_predict_refuses_what_is_no_point(run, x, said):
    with pytest.raises(ConfigError, match=said):
        predict(run, x)


def test_predict_takes_what_run_and_load_returned():
    found = fractal_ifs.run(fractal="vicsek", width=4, depth=1, steps=20, eval_every=10, data__train_size=200)
    np.testing.assert_array_equal(predict(found, X), predict(found.model, X))
    other: Any = [found]
    with pytest.raises(ConfigError, match=r"^network: must be a directory, a module, or what load or run returned"):
        predict(other, X)


def test_the_verb_is_a_module_too_and_hides_no_function():
    assert import_module("fractal_ifs.predict") is fractal_ifs.predict is predict
    call = [sys.executable, "-m", "fractal_ifs.predict", "--help"]  # a command's signals are a process's own
    ended = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("usage: python -m fractal_ifs.predict ")


def test_a_network_that_says_nothing_of_a_point_gives_no_sign(run, tmp_path, monkeypatch):
    (tmp_path / "points.csv").write_text("0,0\n1,1\n")
    monkeypatch.setattr("fractal_ifs.runs.predict.outputs", lambda network, x: torch.tensor([torch.nan, -0.5]))
    assert predictions(run, tmp_path / "points.csv").splitlines()[1:] == ["0,0,nan,", "1,1,-0.5,-1"]


def test_a_network_on_images_takes_no_points(monkeypatch, tmp_path):
    from fractal_ifs.runs import predict as module

    config = small(data="cifar10", model="cnn", data__dir=str(tmp_path))
    with pytest.raises(ConfigError, match="data=cifar10: must be a run on a fractal"):
        module.dimension(config)


def test_predict_leaves_a_network_in_training_as_it_is():
    frozen = torch.nn.BatchNorm1d(4).eval()
    network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), frozen, torch.nn.Dropout(0.5))
    network = torch.nn.Sequential(network, torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    found = predict(network, X)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    np.testing.assert_array_equal(predict(network.eval(), X), found)
