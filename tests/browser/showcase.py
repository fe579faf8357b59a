"""A small world of projects for the pages to show: ordinary ones, long ones and hostile ones."""

from __future__ import annotations

from collections.abc import Iterator

from private_pypi.testing.distributions import make_sdist, make_wheel

README = """\
# Tidewater

[![tests](https://badges.example/tests.svg)](https://ci.example/tidewater)
![coverage](https://badges.example/coverage.svg)

Read **tide tables** and river gauges, and know when the quay will be dry.

## Quick start

```python
from tidewater import Harbour

harbour = Harbour("Cuxhaven", margin=0.3)  # metres
for window in harbour.dry_windows(days=2):
    print(f"{window.start:%H:%M} to {window.end:%H:%M}")
```

> [!NOTE]
> Times are in UTC unless a zone is given.

## What it knows

| Source         | Interval | Covers          |
|----------------|---------:|-----------------|
| `gauge`        |   15 min | rivers, canals  |
| `tide-table`   |     6 h  | sea ports       |
| `forecast`     |     1 h  | both            |

- [x] gauges of three countries
- [ ] storm surges

See the [handbook](https://docs.example/tidewater) or [the change log](CHANGELOG.md).
"""

HOSTILE = """\
# <script>document.title = "taken"</script>Hostile

<img src="https://tracker.example/pixel.gif" onerror="document.title='taken'">
<a href="javascript:document.title='taken'">click</a>
<form action="/logout/" method="post"><button>free</button></form>
<style>body { display: none }</style>
<p style="position:fixed" class="card primary" id="content" onclick="x()">text</p>
<iframe src="https://evil.example/"></iframe>
[relative](../../logout/) [data](data:text/html,hello)
"""

ABOUT = [
    ("Summary", "Tide tables and river gauges for harbour planning"),
    ("Author-email", "Ada Lovegrove <ada@harbour.example>, Jun Sato <jun@harbour.example>"),
    ("License-Expression", "Apache-2.0"),
    ("Keywords", "tides,gauges,harbours"),
    ("Classifier", "Programming Language :: Python :: 3"),
    ("Classifier", "Topic :: Scientific/Engineering :: Hydrology"),
    ("Project-URL", "Documentation, https://docs.example/tidewater"),
    ("Project-URL", "Source, https://code.example/tidewater"),
    ("Project-URL", "Issues, https://code.example/tidewater/issues"),
    ("Requires-Dist", "httpx (>=0.27)"),
    ("Requires-Dist", "numpy (>=1.26)"),
    ("Requires-Dist", 'tzdata ; platform_system == "Windows"'),
    ("Provides-Extra", "plot"),
    ("Description-Content-Type", "text/markdown"),
]

OTHERS = (
    ("acme-auth", "2.4.1", "Single sign-on for internal services"),
    ("acme-billing", "11.0.3", "Invoices, dunning and value added tax"),
    ("berth-planner", "0.9.0", "Assigns ships to berths, and says why"),
    ("cargo-manifest", "3.2.0", "Reads and checks manifests in every format customs knows"),
    ("crane-telemetry", "1.14.2", "Telemetry of cranes over MQTT"),
    ("dockyard-cli", "5.1.0", "The command line of the yard"),
    ("harbour-maps", "2026.3", "Charts as tiles"),
    ("lighthouse-metrics", "0.4.2", ""),
    ("pilot-roster", "7.0.0", "Who is on duty, when, and who stands in"),
    ("weather-feed", "1.0.0rc2", "Wind, waves and visibility from four services"),
)

Files = Iterator[tuple[str, bytes]]


def ordinary() -> Files:
    """A dozen projects; `tidewater` has a history."""
    for name, version, summary in OTHERS:
        yield make_wheel(name, version, extra_metadata=[("Summary", summary)] if summary else [])
    for version in ("0.8.0", "1.0.0", "1.1.0", "1.2.0", "2.0.0rc1"):
        wheel = make_wheel(
            "tidewater", version, requires_python=">=3.10", extra_metadata=ABOUT, description=README
        )
        yield wheel
        yield make_sdist(
            "tidewater", version, requires_python=">=3.10", extra_metadata=ABOUT, description=README
        )
    yield make_wheel(
        "tidewater", "1.2.0", requires_python=">=3.10", extra_metadata=ABOUT, description=README,
        tag="cp312-cp312-manylinux_2_28_x86_64",
    )  # fmt: skip


def hostile() -> Files:
    """A project whose every word tries to be more than a word."""
    yield make_wheel(
        "hostile",
        extra_metadata=[
            ("Summary", "<script>document.title='taken'</script> & \"quoted\" 'words'"),
            ("Author", "<b>Eve</b>"),
            ("License", "<img src=x onerror=alert(1)>"),
            ("Keywords", "</title><script>alert(1)</script>"),
            ("Project-URL", "Evil, javascript:alert(1)"),
            ("Project-URL", "<i>Label</i>, https://evil.example/?a=1&b=2"),
            ("Home-page", "data:text/html,hello"),
            ("Requires-Dist", "<u>x</u>"),
            ("Description-Content-Type", "text/markdown"),
        ],
        description=HOSTILE,
    )


def long() -> Files:
    """A project with a description of a thousand paragraphs, and three pages of releases."""
    badges = "".join(
        f"![badge {number}](https://badges.example/{number}.svg)\n" for number in range(30)
    )
    text = f"# Odyssey\n\n{badges}\n" + "Tell me of the man of many ways.\n\n" * 1000
    about = [("Description-Content-Type", "text/markdown")]
    for number in range(101):
        yield make_wheel(
            "odyssey",
            f"1.{number}",
            extra_metadata=about,
            description=text if number == 100 else "",
        )
