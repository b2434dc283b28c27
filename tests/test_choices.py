"""Keys of a choice in a grid over choices, ``optimizer=adam,sgd optimizer.momentum=.9``: they count where they are."""

import re

import pytest

from fractal_ifs.api import _grid
from fractal_ifs.errors import ConfigError
from fractal_ifs.sweeps.from_python import _asked, _planned

TINY = {"steps": 20, "eval_every": 20, "width": 4, "depth": 1, "data__train_size": 200, "data__test_size": 50}


def jobs(where, **keywords):
    """The names of a grid's directories without what all have, and their configs."""
    with _asked(where, TINY | {"logger": "none"} | keywords) as asked:
        planned = _planned(asked, _grid)
    shared = {f"{name.replace('__', '.')}={value}" for name, value in TINY.items()}
    names = [str(each.job.directory).rpartition("/")[2].split(",") for each in planned.composed]
    return [",".join(word for word in name if word not in shared) for name in names], [
        each.job.config for each in planned.composed
    ]


@pytest.mark.parametrize(
    ("keywords", "names"),
    [
        (
            {"optimizer": ["adam", "sgd"], "optimizer__momentum": 0.9},
            ["optimizer=adam", "optimizer.momentum=0.9,optimizer=sgd"],
        ),
        (  # swept: the jobs of adam become one
            {"optimizer__momentum": [0.5, 0.9], "optimizer": ["adam", "sgd"]},
            ["optimizer=adam", "optimizer.momentum=0.5,optimizer=sgd", "optimizer.momentum=0.9,optimizer=sgd"],
        ),
        (  # none of them is the default, and each has a key of its own
            {"optimizer": ["sgd", "adamw"], "optimizer__momentum": 0.9, "optimizer__betas": (0.8, 0.9)},
            ["optimizer.momentum=0.9,optimizer=sgd", "optimizer.betas=[0.8,0.9],optimizer=adamw"],
        ),
        (
            {"schedule": ["constant", "cosine", "linear"], "schedule__final": 0.1},
            ["schedule=constant", "schedule.final=0.1,schedule=cosine", "schedule.final=0.1,schedule=linear"],
        ),
        (
            {"curve": [4, "weights"], "curve__weights": (0, 0, 1, 2, 4)},
            ["curve=4", "curve.weights=[0,0,1,2,4],curve=weights"],
        ),
        (
            {"model": ["mlp", "resmlp"], "model__activation": ["relu", "tanh"], "model__skip": "sum"},
            [
                "model.activation=relu,model.skip=sum,model=mlp",
                "model.activation=relu,model=resmlp",
                "model.activation=tanh,model.skip=sum,model=mlp",
                "model.activation=tanh,model=resmlp",
            ],
        ),
    ],
)
def test_a_key_counts_for_the_choices_that_have_it(tmp_path, keywords, names):
    found, configs = jobs(tmp_path, **keywords)
    assert sorted(found) == sorted(names)
    assert len({config.fingerprint for config in configs}) == len(names)
    for name, config in zip(found, configs, strict=True):
        given = dict(re.findall(r"([\w.]+)=(\[[^]]*\]|[^,]*)", name))
        leaves = config.leaves()
        if "optimizer.momentum" in given:
            assert leaves["optimizer.momentum"] == float(given["optimizer.momentum"])
        if "schedule.final" in given:
            assert leaves["schedule.final"] == 0.1


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"optimizer": ["adam", "adamw"], "optimizer__momentum": 0.9}, "goes with optimizer=sgd"),
        ({"optimizer": ["adam", "sgd"], "optimizer__momentun": 0.9}, "did you mean optimizer.momentum?"),
        ({"optimizer": "adam", "optimizer__momentum": [0.5, 0.9]}, "goes with optimizer=sgd"),
        ({"optimizer": ["adam"], "optimizer__momentum": 0.9}, "goes with optimizer=sgd"),
        ({"optimizer": ["adam", "sgd"], "optimizer__momentum": 1.5}, "must be a finite number >= 0 and < 1"),
        ({"optimizer": ["adam", "sgd"], "optimizer__betas": 1}, "optimizer.betas=1"),
    ],
)
def test_a_key_of_none_of_the_choices_is_refused(tmp_path, keywords, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        jobs(tmp_path, **keywords)


MOMENTA = {"optimizer": "adam,sgd", "optimizer.momentum": ".5,.9"}
TRIO = ["optimizer=adam", "optimizer.momentum=0.5,optimizer=sgd", "optimizer.momentum=0.9,optimizer=sgd"]


@pytest.mark.parametrize(
    ("grid", "keywords", "names"),
    [
        (MOMENTA, {}, TRIO),
        # the file's own key goes with another choice of the file
        (MOMENTA, {"optimizer": ["adam", "adamw"]}, ["optimizer=adam", "optimizer=adamw"]),
        ({"optimizer": "adam,sgd"}, {"optimizer__momentum": [0.5, 0.9]}, TRIO),
        ({"optimizer.momentum": ".5,.9"}, {"optimizer": ["adam", "sgd"]}, TRIO),
        *(
            pytest.param(MOMENTA, *case, marks=pytest.mark.slow)
            for case in (
                ({"optimizer": "sgd"}, TRIO[1:]),
                ({"optimizer": "adam"}, TRIO[:1]),
                ({"optimizer__momentum": 0.7}, ["optimizer=adam", "optimizer.momentum=0.7,optimizer=sgd"]),
            )
        ),
    ],
)
def test_a_grid_in_an_experiments_file_is_as_that_of_a_command(tmp_path, grid, keywords, names):
    (own := tmp_path / "mine" / "experiment").mkdir(parents=True)
    text = "".join(f"      {name}: {value}\n" for name, value in grid.items())
    (own / "momenta.yaml").write_text(f"# @package _global_\nhydra:\n  sweeper:\n    params:\n{text}")
    searched = {"experiment": "momenta", "hydra__searchpath": [str(tmp_path / "mine")]}
    found, _ = jobs(tmp_path / "s", **searched | keywords)
    assert sorted(found) == sorted(names)
    for wrong in ({"optimizer": "adam", "optimizer__momentum": [0.5, 0.9]}, {"optimizer__momentun": 0.5}):
        with pytest.raises(ConfigError, match=r"goes with optimizer=sgd|did you mean optimizer.momentum\?"):
            jobs(tmp_path / "s", **searched | wrong)


def test_a_line_says_where_a_key_does_not_count(command, tmp_path):
    words = ["-m", "optimizer=adam,sgd", "optimizer.momentum=.5,.9", "sweep=s", "logger=none"]
    words += [f"{name.replace('__', '.')}={value}" for name, value in TINY.items()]
    ended = command(*words)
    assert ended.status == 0
    assert "optimizer.momentum: no key of optimizer=adam: 1 job without it" in ended.out + ended.err
    assert len(list((tmp_path / "multirun" / "s").glob("*/result.json"))) == 3


@pytest.mark.parametrize(
    "words", ["optimizer=adam,sgd optimizer.momentum=.9", "optimizer.momentum=.9 optimizer=adam,sgd"]
)
def test_without_m_the_group_is_told(command, words):
    told = (
        "error: (optimizer=adam,sgd: several values are a sweep|optimizer.momentum=.9: its group has several values): "
    )
    assert re.match(told, command(*words.split()).status)
