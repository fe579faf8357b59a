"""The documents as data: links, tables and blocks, and what marks say of them; it runs nothing.

A mark is an HTML comment on the line before a table or a fenced block:

    <!-- table: TOPIC -->          what the first column names is complete and true
    <!-- admin secrets -->         such a file; every other TOML with a `type` is a configuration
    <!-- run: SESSION -->          commands to run; the lines between them are what they say
    <!-- serve: SESSION -->        the same, but the last one is a server, which goes on running
    <!-- file: SESSION, PATH -->   a file that is there for the commands after it
    <!-- add: SESSION, PATH -->    lines that are added to one
    <!-- not run here: REASON -->  commands that no session runs

A session is of one document. Its blocks are taken in order, in a folder of its own.
In what a command says, `…` stands for anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
ALL = [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
ALL += sorted((ROOT / "backends").glob("**/README.md"))

_MARK = re.compile(r"<!-- ([a-z ]+?)(?:: (.+?))? -->")
_FENCE = re.compile(r"(`{3,})(\w*)")
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(<?([^)\s>]+)>?\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block, and the mark before it ("" for none)."""

    document: Path
    line: int  # of the fence, from 1
    language: str
    text: str
    mark: str
    about: str  # what the mark says after its colon

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def session(self) -> str:
        """The session that the mark names."""
        return self.about.partition(", ")[0]

    @property
    def path(self) -> str:
        """The path that the mark of a file names."""
        return self.about.partition(", ")[2]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a marked table."""

    where: str
    names: tuple[str, ...]  # the code in the first cell
    cells: tuple[str, ...]  # all others


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, and what it says."""

    line: str
    says: str


def blocks(document: Path) -> Iterator[Block]:
    """All fenced blocks, in order."""
    lines = document.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.fullmatch(lines[at].strip())
        if fence is None:
            at += 1
            continue
        indent = len(lines[at]) - len(lines[at].lstrip())
        end = next(n for n in range(at + 1, len(lines)) if lines[n].strip() == fence[1])
        mark = _MARK.fullmatch(lines[at - 1].strip()) if at else None
        yield Block(
            document,
            at + 1,
            fence[2],
            "".join(f"{line[indent:]}\n" for line in lines[at + 1 : end]),
            "" if mark is None else mark[1],
            "" if mark is None else mark[2] or "",
        )
        at = end + 1


def tables(document: Path) -> Iterator[tuple[str, list[Row]]]:
    """The topic and the rows of each marked table."""
    lines = document.read_text(encoding="utf-8").splitlines()
    for at, line in enumerate(lines):
        mark = _MARK.fullmatch(line)
        if mark is None or mark[1] != "table":
            continue
        rows = []
        for number, row in enumerate(lines[at + 3 :], at + 4):
            if not row.startswith("|"):
                break
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
            where = f"{document.relative_to(ROOT)}:{number}"
            rows.append(Row(where, tuple(_SPAN.findall(cells[0])), tuple(cells[1:])))
        yield mark[2], rows


def marks(document: Path) -> Iterator[tuple[int, str]]:
    """Every line that is or should be a mark, with its number."""
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip().startswith("<!--"):
            yield number, line.strip()


def links(document: Path) -> Iterator[str]:
    """The targets of all links outside fenced blocks."""
    yield from _LINK.findall(_prose(document))


def anchors(document: Path) -> set[str]:
    """What links may have after their `#`, as GitHub makes it of the headings."""
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#+ (.+)$", _prose(document)):
        text = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number = 0
        while (name := f"{text}-{number}" if number else text) in found:
            number += 1
        found.add(name)
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a console block: each begins with `$ `, and may go on after a backslash."""
    found: list[tuple[list[str], list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(([line[2:]], []))
        elif found and not found[-1][1] and found[-1][0][-1].endswith("\\"):
            found[-1][0].append(line)
        else:
            assert found, f"{block.where}: no command before {line!r}"
            found[-1][1].append(line)
    return [Command("\n".join(line), "\n".join(says)) for line, says in found]


def says(expected: str, said: str) -> bool:
    """Whether a command said what the document shows, in which `…` stands for anything."""
    if not expected:
        return True
    parts = [re.escape(part) for part in re.split(r"…", expected)]
    return re.fullmatch(".*".join(parts).strip(), said.strip(), re.DOTALL) is not None


def _prose(document: Path) -> str:
    text = document.read_text(encoding="utf-8")
    return re.sub(r"(?ms)^ *(`{3,})\w*\n.*?^ *\1$", "", text)
