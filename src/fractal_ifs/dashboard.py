"""``python -m fractal_ifs.dashboard ENTITY``: a W&B workspace with panels for a sweep of this package."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fractal_ifs.config.options import line, wandb_name
from fractal_ifs.errors import ConfigError, message, short, told
from fractal_ifs.extras import require
from fractal_ifs.help.layout import Examples, Parser, program
from fractal_ifs.streams import command

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace


def workspace(entity: str, project: str = "fractal_ifs", sweep: str | None = None) -> "Workspace":
    """The workspace: accuracy by the keys of a sweep, accuracy against width and curve, and learning curves in groups.

    The best runs come first. Nothing is saved.

    Args:
        entity, project: as the keys ``logger.entity``, the W&B user or team, and ``logger.project``.
        sweep: only the runs of this sweep, which is their group in W&B. None: all runs.

    Raises ConfigError where W&B's library for workspaces is not installed.
    """
    require("dashboard")
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.reports.v2.interface import ParallelCoordinatesPlotColumn as Column

    best = wr.SummaryMetric("best_test_acc")

    def scatter(key: str, title: str, **style: Any) -> Any:
        return wr.ScatterPlot(title=title, x=wr.Config(key), y=best, **style)

    def bars(key: str) -> Any:
        return wr.BarPlot(title=f"by {key}", metrics=[best], groupby=wr.Config(key), groupby_aggfunc="mean")

    def curves(key: str) -> Any:
        return wr.LinePlot(
            title=f"test accuracy by {key}",
            x="step",
            y=["test_acc"],
            groupby=wr.Config(key),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )

    keys = ("fractal.name", "curve.name", "depth", "width", "lr")
    matrix = [Column(metric=wr.Config(key)) for key in keys]
    matrix.append(Column(metric=best))
    sections = [
        ("Accuracy by all keys", [wr.ParallelCoordinatesPlot(title="accuracy matrix", columns=matrix)]),
        ("Accuracy by one key", [bars(key) for key in ("depth", "width", "curve.name", "fractal.name")]),
        ("Accuracy against width and curve", [scatter("width", "width", log_x=True), scatter("curve.name", "curve")]),
        ("Learning curves", [curves(key) for key in ("depth", "curve.name", "width", "lr")]),
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=sweep or "depth and width",
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections],
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group") == sweep] if sweep else [],
            groupby=[ws.Config("fractal.name"), ws.Config("curve.name")],
            order=[ws.Ordering(ws.Summary("best_test_acc"), ascending=False)],
            pinned_columns=["summary:best_test_acc", "config:depth", "config:width", "config:lr", "config:seed"],
        ),
    )


def parser() -> Parser:
    """The command's options."""
    text = (
        "Save a W&B workspace with panels for a sweep: accuracy by its keys, learning curves in groups, the best runs "
        "first. It needs the extra 'dashboard', pip install 'fractal_ifs[dashboard]', and a login."
    )
    given: Examples = (
        ("my-team --sweep tables-1000000", ""),
        ("my-team --print", "show it as JSON, without a login or the network"),
    )
    out = Parser(program("dashboard"), text, given)
    out.add_argument("entity", type=wandb_name, metavar="ENTITY", help="the W&B user or team")
    out.add_argument("--project", type=wandb_name, default="fractal_ifs", help="default: fractal_ifs")
    out.add_argument("--sweep", type=line, help="only the runs of this sweep")
    out.add_argument("--print", action="store_true", dest="show", help="print the workspace as JSON and save nothing")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = parser().parse_args(arguments)
    with told():
        made = workspace(given.entity, given.project, given.sweep)
        if given.show:
            print(made._to_model().model_dump_json(by_alias=True, indent=1))
            return
        try:
            url = made.save().url
        except Exception as error:  # any of W&B's, or of the network's
            raise ConfigError(f"W&B doesn't take it: {short(message(error), 300)}") from None
        print(url)


if __name__ == "__main__":
    command(main)
