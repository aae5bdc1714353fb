"""The few kinds of panels, variables and annotations that the dashboards are made of."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT = 8
Query = tuple[str, str]
"""What a series is called, and what it is asked for by."""
Steps = Sequence[tuple[float | None, str]]
"""From which value on a figure has which colour; the first from None."""
CALM: Steps = ((None, "green"),)
ALARM: Steps = ((None, "green"), (1, "red"))


def figure(title: str, about: str, query: str, unit: str = "short", steps: Steps = CALM, width: int = 4) -> stat.Panel:
    """Make a panel of one large figure, the present one."""
    return (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .with_target(_ask("", query).instant())
        .unit(unit)
        .thresholds(_thresholds(steps))
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .height(4)
        .span(width)
    )


def graph(title: str, about: str, queries: Sequence[Query], unit: str = "short", width: int = 12) -> timeseries.Panel:
    """Make a panel of lines over time that are values, not slopes: each holds until the next."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .line_interpolation(common_models.LineInterpolation.STEP_AFTER)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(common.VizLegendOptions().display_mode(common_models.LegendDisplayMode.LIST).show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
        .height(HEIGHT)
        .span(width)
    )
    for letter, (legend, query) in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(_ask(legend, query).range().ref_id(letter))
    return panel


def stacked(title: str, about: str, queries: Sequence[Query], width: int = 12) -> timeseries.Panel:
    """Make a panel of areas that lie upon one another."""
    stacking = common.StackingConfig().mode(common_models.StackingMode.NORMAL)
    return graph(title, about, queries, width=width).fill_opacity(40).stacking(stacking)


def spans(title: str, about: str, legend: str, query: str, width: int = 12) -> statetimeline.Panel:
    """Make a panel that shows from when to when each series was there."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .with_target(_ask(legend, query).range())
        .show_value(common_models.VisibilityMode.NEVER)
        .thresholds(_thresholds(((None, "transparent"), (1, "blue"))))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .height(HEIGHT)
        .span(width)
    )


def rows(title: str, about: str, key: str, columns: Sequence[Query], link: str) -> table.Panel:
    """Make a table with a row for each value of a label, which leads to `link`, and a column for each query."""
    panel = table.Panel().title(title).description(about).datasource(SOURCE).height(HEIGHT).span(24)
    names = {}
    for letter, (name, query) in zip("ABCDEFGHIJ", columns, strict=False):
        panel.with_target(_ask("", query).instant().format(prometheus_models.PromQueryFormat.TABLE).ref_id(letter))
        names[f"Value #{letter}"] = name
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    organize = {"excludeByName": {"Time": True}, "renameByName": names}
    panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=organize))
    links = [{"title": "Look at this group", "url": link}]
    return panel.override_by_name(key, [models.DynamicConfigValue(id_val="links", value=links)])


def source_variable() -> dashboard.DatasourceVariable:
    """Let people choose which Prometheus is asked."""
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def variable(name: str, label: str, query: str, *, many: bool) -> dashboard.QueryVariable:
    """Let people choose among the values of a label."""
    made = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    if not many:
        return made
    everything = models.VariableOption(text="All", value="$__all", selected=True)
    return made.multi(True).include_all(True).all_value(".*").current(everything)


class _TimesAsValues(models.AnnotationQuery):
    """An annotation whose query gives the times of what is marked; the SDK does not know these keys of Prometheus'."""

    def __init__(self, name: str, query: str, title: str, text: str, color: str) -> None:
        super().__init__(name=name, datasource=SOURCE, icon_color=color, expr=query)
        self._own = {"titleFormat": title, "textFormat": text, "useValueForTime": True, "step": "10s"}

    def to_json(self) -> dict[str, object]:
        """Render with the keys of the Prometheus data source."""
        return {**super().to_json(), **self._own}


class Marks(Builder[models.AnnotationQuery]):
    """Marks the moments that a query names in seconds since the epoch."""

    def __init__(self, name: str, query: str, title: str, text: str, color: str) -> None:
        self._query = _TimesAsValues(name, f"1000 * {query}", title, text, color)

    def build(self) -> models.AnnotationQuery:
        """Give what was made."""
        return self._query


def _ask(legend: str, query: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(SOURCE).expr(query).legend_format(legend).ref_id("A")


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    return dashboard.ThresholdsConfig().steps([models.Threshold(value=value, color=color) for value, color in steps])
