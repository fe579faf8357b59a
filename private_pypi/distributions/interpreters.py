"""Which distribution files suit an interpreter: by `Requires-Python` and by the tags of wheels.

An interpreter is CPython of some version on some platform. Wheels that are not for any platform or
version in particular suit all, and so do source distributions, because they are built where they
are installed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.version import Version

from private_pypi.distributions.filenames import is_version

_LONGEST: Final = 200  # characters of a text that somebody gives
_MICROS: Final = 40  # "3.11" stands for 3.11.0 to 3.11.39
_PYTHON: Final = re.compile(r"([0-9]{1,2})\.([0-9]{1,3})(\.[0-9]{1,3})?((?:a|b|rc)[0-9]{1,2})?(t)?")
_PLATFORMS: Final = "manylinux_2_28_x86_64, musllinux_1_2_aarch64, macosx_14_0_arm64 or win_amd64"
_LINUX: Final = re.compile(r"(many|musl)linux_([0-9]{1,2})_([0-9]{1,2})_([a-z0-9_]{1,20})")
_MAC: Final = re.compile(r"macosx_([0-9]{1,2})_([0-9]{1,2})_([a-z0-9_]{1,20})")
_WINDOWS: Final = ("win32", "win_amd64", "win_arm64")
_OLD_GLIBC: Final = {"manylinux2014": 17, "manylinux2010": 12, "manylinux1": 5}
"""The older names of platforms: the minor version of glibc 2 that each stands for."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter, of which the version or the platform may be unknown."""

    python: str | None = None  # such as "3.11", "3.11.4" or, with free threads, "3.13t"
    platform: str | None = None  # a platform tag such as "manylinux_2_28_x86_64"
    _versions: tuple[str, ...] = ()  # that `python` stands for; empty: unknown
    _pairs: frozenset[tuple[str, str]] = frozenset()  # Python and ABI tags, for any platform
    _by_platform: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """The same by platform tag. Without a version, the sets are empty."""
    _known: dict[str, str | None] = field(default_factory=dict)  # answers, by what they are about

    @property
    def title(self) -> str:
        """Such as "Python 3.11 on win_amd64"; "" if nothing is known."""
        python = "" if self.python is None else f"Python {self.python}"
        return " on ".join(filter(None, (python, self.platform)))

    def objection(self, filename: str, requires_python: str | None) -> str | None:
        """Why a file does not suit this interpreter, as a sentence; None: it suits.

        `filename` is that of a distribution file. A `Requires-Python` that is not valid is ignored,
        as pip does.
        """
        if requires_python:
            problem = self._remembered(f">{requires_python}", requires_python, self._of_version)
            if problem is not None:
                return problem
        if not filename.endswith(".whl"):
            return None
        tags = "-".join(filename.removesuffix(".whl").lower().split("-")[-3:])
        return self._remembered(f"-{tags}", tags, self._of_tags)

    def _remembered(self, key: str, text: str, ask: Callable[[str], str | None]) -> str | None:
        # Thousands of files of a project have a few dozen tags and specifiers.
        if key not in self._known:
            self._known[key] = ask(text)
        return self._known[key]

    def _of_version(self, requires_python: str) -> str | None:
        try:
            wanted = SpecifierSet(requires_python)
            if not self._versions or any(
                wanted.contains(each, prereleases=True) for each in self._versions
            ):
                return None
        except ValueError:  # InvalidSpecifier, or too many digits for Python to convert
            return None
        return f"it requires Python {requires_python}, and this is {self.python}"

    def _of_tags(self, tags: str) -> str | None:
        pythons, abis, platforms = (part.split(".") for part in tags.split("-"))
        pairs = {(python, abi) for python in pythons for abi in abis}
        if self.python is not None and pairs.isdisjoint(self._pairs):
            told = ", ".join(each for each in dict.fromkeys((*pythons, *abis)) if each != "none")
            return f"it is a wheel for {told}, and this is CPython {self.python}"
        if self.platform is None or (self.python is None and "any" in platforms):
            return None
        found = [each for each in platforms if each in self._by_platform]
        if found and (
            self.python is None
            or any(not pairs.isdisjoint(self._by_platform[each]) for each in found)
        ):
            return None
        return f"it is a wheel for {', '.join(platforms)}, and this is {self.platform}"


def parse_interpreter(python: str | None = None, platform: str | None = None) -> Interpreter:
    """The interpreter that somebody means; raises `ValueError` with a sentence.

    `python` is a version of CPython such as "3.11"; `platform` is the platform tag of the newest
    wheels that it installs, such as "manylinux_2_28_x86_64".
    """
    versions, pairs = ((), None) if python is None else _versions_of(python)
    platforms = () if platform is None else tuple(_platforms_of(platform))
    by_platform: dict[str, set[tuple[str, str]]] = {each: set() for each in platforms}
    if pairs is not None:
        for tag in pairs(platforms):
            by_platform.setdefault(tag.platform, set()).add((tag.interpreter, tag.abi))
    return Interpreter(
        python,
        platform,
        versions,
        # With one made-up platform, the tags are those that the interpreter has on every platform.
        frozenset() if pairs is None else frozenset((t.interpreter, t.abi) for t in pairs(["x"])),
        by_platform,
    )


def parse_wanted(text: str) -> Callable[[str], bool]:
    """Whether a version is one of those that are asked for; raises `ValueError` with a sentence.

    `text` is a version such as "1.0", in any spelling, or a specifier such as ">=1,<2", which
    includes pre-releases.
    """
    wrong = ValueError(
        f"{text[:_LONGEST]!r} is neither a version nor a specifier; it must be like 1.0 or '>=1,<2'"
    )
    text = text.strip()
    if not text or len(text) > _LONGEST:
        raise wrong
    try:
        if text[0] not in "<>=!~":
            version = Version(text)
            return lambda other: is_version(other, version)
        specifier = SpecifierSet(text)
    except ValueError:  # InvalidVersion or InvalidSpecifier, or too many digits to convert
        raise wrong from None

    def contains(other: str) -> bool:
        try:
            return specifier.contains(other, prereleases=True)
        except ValueError:
            return False

    return contains


def _versions_of(text: str) -> tuple[tuple[str, ...], Callable[[Iterable[str]], Iterator[Tag]]]:
    """The versions that a text such as "3.11" stands for, and what makes the tags for platforms."""
    found = _PYTHON.fullmatch(text.strip())
    if found is None or int(found[1]) < 2:
        raise ValueError(
            f"{text[:_LONGEST]!r} is not a version of Python; it must be like 3.11, 3.11.4 or 3.13t"
        )
    major, minor, micro, pre, free = found.groups()
    version = (int(major), int(minor))
    interpreter = f"cp{version[0]}{version[1]}"
    # Older versions were built in several ways, of which this was the usual one.
    old = {2: "mu"}.get(version[0], "m" if version < (3, 8) else "")
    short = f"{major}.{minor}"
    micros = [micro] if micro else [".0"] if pre else [f".{number}" for number in range(_MICROS)]
    versions = tuple(f"{short}{each}{pre or ''}" for each in micros)

    def tags(platforms: Iterable[str]) -> Iterator[Tag]:
        known = list(platforms)
        # Without platforms, packaging would take those of this machine.
        own = cpython_tags(version, [f"{interpreter}{free or old}"], known) if known else ()
        every = compatible_tags(version, interpreter, known or ["any"])
        return chain(own, every)

    return versions, tags


def _platforms_of(text: str) -> Iterator[str]:
    """The tags of the wheels that can be installed on a platform."""
    text = text.strip().lower().replace("-", "_").replace(".", "_")
    for name, glibc in _OLD_GLIBC.items():
        if text.startswith(f"{name}_"):
            text = f"manylinux_2_{glibc}_{text.removeprefix(f'{name}_')}"
    linux, mac = _LINUX.fullmatch(text), _MAC.fullmatch(text)
    if linux is not None:
        libc, major, minor, machine = linux.groups()
        for number in range(int(minor), -1, -1):
            yield f"{libc}linux_{int(major)}_{number}_{machine}"
            for name, same in _OLD_GLIBC.items():
                if (libc, int(major), number) == ("many", 2, same):
                    yield f"{name}_{machine}"
        yield f"linux_{machine}"
    elif mac is not None and int(mac[1]) >= 10:
        yield from mac_platforms((int(mac[1]), int(mac[2])), mac[3])
    elif text in _WINDOWS:
        yield text
    elif text.startswith("linux_"):
        machine = text.removeprefix("linux_")[:20]
        raise ValueError(
            f"{text[:_LONGEST]!r} does not say which C library the system has; it must be like "
            f"manylinux_2_28_{machine} (glibc 2.28) or musllinux_1_2_{machine} (musl 1.2)"
        )
    else:
        raise ValueError(
            f"{text[:_LONGEST]!r} is not the tag of a platform that is known here; it must be like "
            f"{_PLATFORMS}"
        )
