"""The environment variables of PyOCI, with which a server starts that takes its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from private_pypi.commands.command_line import VARIABLES, UsageError

_OWN: Final = "PYOCI_"
_REGISTRIES: Final = "PYOCI_REGISTRIES"
_PORT: Final = 8080
_MAX_BODY: Final = 50_000_000  # bytes
_QUIET: Final = ("off", "error", "warn")  # levels of RUST_LOG at which requests are not logged


def as_command(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with variables of ours that say the same as those of PyOCI.

    It stays as it is if it names a command already, or if it has no variable PYOCI_…. Variables of
    ours that are there take precedence. Raises `UsageError`.
    """
    names = {name.upper() for name in environ}
    if names & set(VARIABLES) or not any(name.startswith(_OWN) for name in names):
        return environ
    given = {name: value for name, value in environ.items() if value}
    registries = [each.strip() for each in given.get(_REGISTRIES, "").split(",") if each.strip()]
    if not registries:
        raise UsageError(
            f"the environment has variables of PyOCI, but not {_REGISTRIES}: it must list the "
            "registries that clients may name, separated by commas, such as ghcr.io"
        )
    table = {
        "type": "oci",
        "any_registry": True,
        "registries": registries,
        "plain_http": any(each.lower().startswith("http:") for each in registries),
        "max_file_bytes": _number(given, "PYOCI_MAX_BODY", _MAX_BODY),
        "max_versions": _number(given, "PYOCI_MAX_VERSIONS", 0),
    }
    bearer_username = given.get("PYOCI_BEARER_USERNAME")
    if bearer_username is not None:
        table["bearer_username"] = bearer_username
    level = given.get("RUST_LOG", "info").split(",")[0].rpartition("=")[2].lower()
    path = given.get("PYOCI_PATH", "").strip("/")
    command = VARIABLES[0]
    ours = {
        command: "server",
        f"{command}_ROOT": "private_pypi_root",
        f"{command}_CONFIG": _toml("pyoci", table),
        f"{command}_CONFIG_OR_ADMIN_SECRET_CAN_BE_TEXT": "true",
        f"{command}_PORT": str(_number(given, "PORT", _PORT)),
        f"{command}_DEBUG": "true" if level in ("debug", "trace") else "false",
        f"{command}_REQUEST_LOG": "false" if level in _QUIET else "true",
    }
    if path:
        ours[f"{command}_URL_PREFIX"] = f"/{path}"
    return ours | dict(environ)


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise UsageError(f"{name}={text}: not a whole number")
    return int(text)


def _toml(name: str, table: Mapping[str, object]) -> str:
    # All values are texts, numbers, booleans or lists of texts, which JSON writes as TOML does.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in table.items()]
    return f"[{name}]\n{''.join(lines)}"
