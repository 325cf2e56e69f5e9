"""The panels that the dashboards are made of: Grafana's own builders with Shoal's habits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)

from shoal.observe.foreign import ROUTER, TRITON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel

    AnyPanel = Builder[Panel]

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
OF_SERVICE = 'service=~"$service"'
OF_ROUTER = f"{OF_SERVICE}, {ROUTER}"
OF_MODEL = f'{OF_SERVICE}, model=~"$model"'
OF_POOL = f'{OF_SERVICE}, pool=~"$pool"'
OF_PIPELINE = f'{OF_SERVICE}, pipeline=~"$pipeline"'
OF_TRITON = f"{OF_POOL}, {TRITON}"
RATE = "$__rate_interval"

COUNT = "short"
SECONDS = "s"
SHARE = "percentunit"
BYTES = "bytes"
BYTES_PER_SECOND = "Bps"
PER_SECOND = "reqps"
WATTS = "watt"

_HEIGHT = 8
_FIGURE_HEIGHT = 4


class Query(NamedTuple):
    """What a panel draws, and its legend in Grafana's templates."""

    expr: str
    legend: str


def quantiles(histogram: str, of: str, *shares: float, scale: str = "", name: str = "") -> list[Query]:
    """Quantiles of a histogram over the series ``of``: ``p50``, ``p90`` and so on, behind ``name``.

    ``scale`` follows each query.
    """
    rates = f"sum by (le) (rate({histogram}_bucket{{{of}}}[{RATE}]))"
    return [Query(f"histogram_quantile({share}, {rates}){scale}", f"{name}p{share * 100:.0f}") for share in shares]


class Limits(NamedTuple):
    """Where green ends and where red begins; of what is better when it is high, the other way round."""

    warning: float
    critical: float

    def config(self) -> dashboard.ThresholdsConfig:
        """Grafana's form."""
        low, middle, high = ("green", "orange", "red") if self.warning < self.critical else ("red", "orange", "green")
        first, second = sorted(self)
        steps = [
            Threshold(value=None, color=low),
            Threshold(value=first, color=middle),
            Threshold(value=second, color=high),
        ]
        return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def lines(
    title: str,
    unit: str,
    *queries: Query,
    text: str,
    width: int = 8,
    stacked: bool = False,
    limits: Limits | None = None,
    most: float | None = None,
) -> timeseries.Panel:
    """Series over time.

    Args:
        title: Of the panel.
        unit: Grafana's name of it.
        queries: What is drawn.
        text: What it tells, and what to look for.
        width: In 24ths of the screen.
        stacked: Series add up to something.
        limits: Drawn as lines.
        most: The axis' upper end, where it is known.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(_HEIGHT)
        .line_width(1)
        .fill_opacity(40 if stacked else 8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if limits is not None:
        style = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        panel.thresholds(limits.config()).thresholds_style(style)
    if most is not None:
        panel.max(most)
    for query, name in zip(queries, "ABCDEFGH", strict=False):
        panel.with_target(_target(query, name))
    return panel


def figure(
    title: str, unit: str, query: Query, *, text: str, width: int = 4, limits: Limits | None = None
) -> stat.Panel:
    """One number now, over its recent past."""
    panel = (
        stat.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(_FIGURE_HEIGHT)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(BigValueGraphMode.AREA)
        .color_mode(BigValueColorMode.VALUE if limits else BigValueColorMode.NONE)
        .with_target(_target(query, "A"))
    )
    return panel.thresholds(limits.config()) if limits else panel


def _target(query: Query, name: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(name).range()


class Variable(NamedTuple):
    """What a reader chooses at the top: one value, or several, of a label."""

    name: str
    query: str
    several: bool = False

    def builder(self) -> dashboard.QueryVariable:
        """Grafana's form."""
        variable = (
            dashboard.QueryVariable(self.name)
            .label(self.name.capitalize())
            .datasource(SOURCE)
            .query(self.query)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
        )
        return variable.multi(True).include_all(True).all_value(".*") if self.several else variable


SERVICE = Variable("service", 'label_values(up{component="batcher"}, service)')
MODEL = Variable("model", f"label_values(shoal_batcher_queue_depth{{{OF_SERVICE}}}, model)")
POOL = Variable("pool", f"label_values(shoal_worker_permit_limit{{{OF_SERVICE}}}, pool)")
PIPELINE = Variable("pipeline", f"label_values(shoal_pipeline_in_flight{{{OF_SERVICE}}}, pipeline)")


def board(
    uid: str,
    title: str,
    text: str,
    variables: Sequence[Variable],
    rows: Sequence[tuple[str, Sequence[AnyPanel]]],
) -> dashboard.Dashboard:
    """A dashboard: rows of panels, the first row's panels at the top."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["shoal"])
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Shoal")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["shoal"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Source").type("prometheus"))
    )
    for variable in variables:
        made.with_variable(variable.builder())
    for name, panels in rows:
        made.with_row(dashboard.Row(name))
        for panel in panels:
            made.with_panel(panel)
    return made
