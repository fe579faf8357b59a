"""Results as a picture: bars in an SVG, written by hand so that nothing needs to be installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks import scenarios
from benchmarks.report import Setting
from benchmarks.results import ONCE, OURS, Measure, Results
from benchmarks.scenarios import Plan, large_measures

_COLOURS = {OURS: "#1f6feb", "pypiserver": "#d29922", "devpi": "#8b949e", ONCE: "#c9d1d9"}
_WIDTH = 960  # pixels
_LABELS = 400  # where the bars begin
_BAR = 14
_LONGEST = _WIDTH - _LABELS - 130  # room for the value behind the longest bar

_RATES = (
    scenarios.PAGES_HTML,
    scenarios.PAGES_JSON,
    scenarios.NOT_MODIFIED,
    scenarios.CORE_METADATA,
    scenarios.SMALL_FILES,
    scenarios.LARGE_FILES,
    scenarios.UPLOADS,
    scenarios.UPLOADS_PASSWORD,
    scenarios.UPLOADS_PARALLEL,
)
_COSTS = (scenarios.INSTALL, scenarios.START, scenarios.MEMORY_BUSY)
_GROWING = (
    scenarios.START,
    scenarios.MEMORY_BUSY,
    scenarios.PAGE_COST,
    scenarios.PAGE_COST_ANY,
    scenarios.UPLOAD_COST,
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a group: its length is that of its value beside the others of the group."""

    label: str
    value: float
    colour: str


def render(results: Results, plan: Plan, setting: Setting) -> str:
    """The picture; every group of bars has a scale of its own."""
    canvas = Canvas()
    canvas.text(24, 36, "private_pypi beside others", size=20, weight=600)
    servers = results.servers()
    versions = " · ".join(f"{name} {setting.versions.get(name, '')}" for name in servers)
    canvas.text(24, 58, f"{versions} · {setting.date} · {setting.machine}", colour="#57606a")
    canvas.skip(84)
    files = f"{plan.files:,} files"
    durations = [large_measures(size)[0] for size in plan.large]
    canvas.panel(f"{files}: longer is better", _groups(results, _RATES, [*servers], plan.files))
    canvas.panel(
        f"{files}: shorter is better",
        _groups(results, (*_COSTS, *durations), [*servers, ONCE], plan.files),
    )
    canvas.panel("private_pypi as the index grows: shorter is better", _growing(results, plan))
    return canvas.finish()


def _groups(
    results: Results, measures: Sequence[Measure], names: Sequence[str], files: int
) -> Iterator[tuple[Measure, list[Bar]]]:
    for measure in measures:
        bars = [
            Bar("read, hashed, written, synced once" if name == ONCE else name, value, colour)
            for name in names
            if (value := results.value(measure, name, files)) is not None
            and (colour := _COLOURS.get(name, "#57606a"))
        ]
        if bars:
            yield measure, bars


def _growing(results: Results, plan: Plan) -> Iterator[tuple[Measure, list[Bar]]]:
    shades = ("#b6d4fe", "#79b0fc", "#4a8ef5", "#1f6feb")
    sizes = sorted({*plan.sizes, plan.files})
    for measure in _GROWING:
        values = [(size, results.value(measure, OURS, size)) for size in sizes]
        bars = [
            Bar(f"{size:,} files", value, shades[min(n, len(shades) - 1)])
            for n, (size, value) in enumerate(values)
            if value is not None
        ]
        if len(bars) > 1:
            yield measure, bars


class Canvas:
    """Shapes from top to bottom; the height is known at the end."""

    def __init__(self) -> None:
        self._shapes: list[str] = []
        self._y = 0.0

    def skip(self, pixels: float) -> None:
        self._y += pixels

    def panel(self, title: str, groups: Iterator[tuple[Measure, list[Bar]]]) -> None:
        found = list(groups)
        if not found:
            return
        self.text(24, self._y + 18, title, size=15, weight=600)
        self.skip(36)
        for measure, bars in found:
            self._group(measure, bars)
        self.skip(16)

    def text(
        self,
        x: float,
        y: float,
        content: str,
        *,
        size: int = 12,
        weight: int = 400,
        colour: str = "#1f2328",
        anchor: str = "start",
    ) -> None:
        self._shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" '
            f'fill="{colour}" text-anchor="{anchor}">{escape(content)}</text>'
        )

    def finish(self) -> str:
        height = self._y + 8
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" '
            f'width="{_WIDTH}" height="{height:g}" '
            'font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif">'
        )
        ground = f'<rect width="{_WIDTH}" height="{height:g}" fill="#ffffff"/>'
        return "\n".join([head, ground, *self._shapes, "</svg>"]) + "\n"

    def _group(self, measure: Measure, bars: Sequence[Bar]) -> None:
        longest = max(bar.value for bar in bars) or 1.0
        title = measure.title.replace("`", "")
        self.text(24, self._y + _BAR - 3, title)
        for bar in bars:
            length = max(1.0, _LONGEST * bar.value / longest)
            middle = self._y + _BAR - 3
            self.text(_LABELS - 8, middle, bar.label, colour="#57606a", anchor="end", size=11)
            self._shapes.append(
                f'<rect x="{_LABELS}" y="{self._y:g}" width="{length:.1f}" height="{_BAR - 2}" '
                f'rx="2" fill="{bar.colour}"/>'
            )
            shown = measure.unit.show(bar.value)
            self.text(_LABELS + length + 6, middle, shown, size=11)
            self.skip(_BAR + 1)
        self.skip(9)
