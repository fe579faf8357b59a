"""What `static_site.check` found, as text for a terminal and as Markdown for a workflow; no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi_static_site.making.public_index import Verdict

ORDER: Final = ("higher", "taken", "free", "ours")
_MOST_ROWS: Final = 500  # of a part of the Markdown; GitHub shows at most 1 MiB

_ADVICE: Final = (
    "Register such a project under a name that is free (static_site.register --as NAME), or, if "
    "the project there is yours, write ours_on_public = true into its file. Until then, use one "
    "index instead of an extra index: with pip --index-url alone, with uv and poetry a source that "
    "is named for the project."
)
_FREE: Final = (
    "Anybody can register these names on the public index, and installers that also use it would "
    "find that project. Register them there yourself, or use one index instead of an extra index."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found."""

    public_index: str
    projects: int
    verdicts: Mapping[NormalizedName, Verdict] = field(default_factory=dict)  # also kept ones
    troubles: Mapping[NormalizedName, str] = field(default_factory=dict)  # no verdict of today
    problems: Sequence[str] = ()  # of the folder and of links
    unreached: str | None = None  # why no name was compared
    compared: bool = True  # whether names were to be compared
    strict: bool = False

    @property
    def failed(self) -> bool:
        """Whether somebody has to act."""
        bad = {"higher", "taken", *(["free"] if self.strict else [])}
        kinds = {verdict.kind for verdict in self.verdicts.values()}
        return bool(self.problems or self.troubles or self.unreached or bad & kinds)

    def rows(self) -> list[tuple[NormalizedName, Verdict]]:
        """The verdicts that somebody should see, the gravest first."""
        shown = [each for each in self.verdicts.items() if each[1].kind != "ours"]
        return sorted(shown, key=lambda each: (ORDER.index(each[1].kind), each[0]))


def sentence(name: NormalizedName, verdict: Verdict) -> str:
    """What a verdict means."""
    there, here = verdict.public_version, verdict.our_version
    pre = " (a pre-release)" if there is not None and Version(there).is_prerelease else ""
    match verdict.kind:
        case "free":
            says = "nobody has this name on the public index"
        case "ours":
            says = f"the project on the public index is ours too ({there or 'no version'})"
        case "taken" | "higher" if there is None:
            says = "the name is taken on the public index, where it has no version yet"
        case "higher" if here is None:
            says = f"the public index has {there}{pre}, and nothing here may be chosen instead"
        case "higher" if here is not None and Version(there) > Version(here):
            says = (
                f"the public index has {there}{pre}, which is higher than {here} here; installers "
                "that use both choose it"
            )
        case "higher":
            says = f"the public index has {there}, which installers prefer to {here}, a pre-release"
        case _ if there == here:
            says = f"the public index has {there}{pre} as well; installers may choose either"
        case _:
            says = (
                f"the name is taken on the public index; {there}{pre} there is lower than {here} "
                "here, but the next version may not be"
            )
    return f"{name}: {says}"


def as_text(report: Report) -> Iterator[str]:
    """The lines for a terminal."""
    yield from (_one_line(problem) for problem in report.problems)
    rows = report.rows()
    if rows:
        yield ""
        yield from _table(
            [
                ("project", "verdict", "here", "public index", "checked"),
                *(_cells(name, verdict) for name, verdict in rows),
            ]
        )
    yield from _sentences(report)
    yield ""
    yield _summary(report, report.public_index)


def as_markdown(report: Report) -> str:
    """A part of the summary of a workflow run. Nothing that a package says is markup in it."""
    # The address of the public index comes from the site, so it could be markup.
    lines = ["## Check of the site", "", _summary(report, _code(report.public_index)), ""]
    lines += _bullets("Problems", [_code(each) for each in report.problems])
    rows = report.rows()
    if rows:
        lines += ["| project | verdict | here | public index | checked |", "|---|---|---|---|---|"]
        # These are normalised names and versions, whose characters have no meaning in Markdown.
        lines += [f"| {' | '.join(_cells(*row))} |" for row in rows[:_MOST_ROWS]]
        lines += _more(rows)
    lines += _bullets("", [_code(each) for each in _sentences(report) if each])
    return "\n".join(lines) + "\n"


def _cells(name: NormalizedName, verdict: Verdict) -> tuple[str, ...]:
    return (
        name,
        verdict.kind,
        verdict.our_version or "-",
        verdict.public_version or "-",
        f"{verdict.checked_at:%Y-%m-%d}",
    )


def _sentences(report: Report) -> Iterator[str]:
    rows = report.rows()
    grave = [row for row in rows if row[1].kind in ("higher", "taken")]
    if grave:
        yield ""
        yield from (sentence(*row) for row in grave)
        yield _ADVICE
    free = [name for name, verdict in rows if verdict.kind == "free"]
    if free:
        yield ""
        yield f"free: {', '.join(free)}"
        yield _FREE
    if report.unreached or report.troubles:
        yield ""
    if report.unreached:
        yield _one_line(f"the public index was not asked: {report.unreached}")
    for name, trouble in sorted(report.troubles.items()):
        kept = report.verdicts.get(name)
        earlier = f"; the verdict of {kept.checked_at:%Y-%m-%d} is kept" if kept else ""
        yield _one_line(f"{name}: no verdict: {trouble}{earlier}")


def _summary(report: Report, public_index: str) -> str:
    kinds = [verdict.kind for verdict in report.verdicts.values()]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ORDER)
    names = f"on {public_index}: {counts}" if report.compared else "names were not compared"
    return f"projects: {report.projects}; problems: {len(report.problems)}; {names}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def _bullets(title: str, items: Sequence[str]) -> Iterable[str]:
    if items:
        yield from ((f"### {title}", "") if title else ("",))
        yield from (f"- {each}" for each in items[:_MOST_ROWS])
        yield from _more(items)
        yield ""


def _more(items: Sequence[object]) -> Iterable[str]:
    if len(items) > _MOST_ROWS:
        yield from ("", f"… and {len(items) - _MOST_ROWS} more")


def _code(text: str) -> str:
    """A code span, in which nothing has a meaning: its fence is longer than all within."""
    text = _one_line(text)[:1000]
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
