"""`server` and `quickstart`: from flags to the options of a server, which `web` runs."""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import string
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

from pypi_simple import PYPI_SIMPLE_ENDPOINT

from private_pypi.backend import Secret
from private_pypi.command_line import Parameter, Texts, UsageError
from private_pypi.commands.files import (
    one_secret,
    read_source,
    say,
    usable_root,
)
from private_pypi.config import (
    RepositorySettings,
    Source,
    check_extra_index_url,
    read_configuration,
)
from private_pypi.errors import ConfigurationError
from private_pypi.plugins import did_you_mean
from private_pypi.private_files import write_private

CONFIG: Final = "config.toml"
ADMIN_SECRET: Final = "admin_secret.toml"  # noqa: S105 - the name of a file


def server(
    root: str,
    *,
    config: str | None = None,
    admin_secret: str | None = None,
    config_or_admin_secret_can_be_text: bool = False,
    auth_read_expires: int = 3600,
    auth_write_expires: int = 300,
    extra_index_url: str = PYPI_SIMPLE_ENDPOINT,
    debug: bool = False,
    host: str = "0.0.0.0",  # noqa: S104 - as private-pypi 0.2 did
    port: int = 8888,
    admin_token_env: str | None = None,
    admin_token_file: str | None = None,
    allow_env: str = "",
    max_form_bytes: int = 8 * 2**20,
    max_form_parts: int = 10_000,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    metrics_token_env: str | None = None,
    metrics_token_file: str | None = None,
    log_format: str = "text",
    request_log: bool = True,
    environ: Mapping[str, str],
    **waitress_options: str,
) -> None:
    """Run the server.

    It serves each repository of the configuration under http://HOST:PORT/r/<repository>/simple/,
    and the one that the Basic user names under /simple/. Without --config it serves what was
    submitted to /initialize/ before and is kept in ROOT, or waits for it.
    Ends on SIGTERM or SIGINT when the requests in flight are answered, after 30 s at most.
    Flags that are not explained here go to waitress, which does the serving.

    Args:
        root: Folder for the local indexes, caches, locks and temporary files; made when missing.
            It must be on a local disk.
        config: Path of the configuration of the repositories (TOML), or its text if
            --config_or_admin_secret_can_be_text is set.
        admin_secret: Path of the admin secrets (TOML), or its text likewise. The server goes to
            the storages with them; a file_system repository needs none.
        config_or_admin_secret_can_be_text: Take --config and --admin_secret for the text itself
            where they are not an existing path; it is kept in ROOT.
        auth_read_expires: Seconds for which a checked right to read is remembered.
        auth_write_expires: Seconds for which a checked right to write is remembered.
        extra_index_url: The index to which requests for unknown projects are redirected; an empty
            text disables it.
        debug: Log more, and show the traceback when the server ends by an error.
        host: The address to listen on.
        port: The port to listen on.
        admin_token_env: Name of the environment variable that holds the token for changing the
            configuration over HTTP.
        admin_token_file: Path of a file that holds that token.
        allow_env: Names of environment variables, separated by commas, that a configuration
            submitted over HTTP may read.
        max_form_bytes: The most bytes that all fields of an upload's form may have together,
            without the file; descriptions of packages are among them.
        max_form_parts: The most fields that an upload's form may have.
        tls_cert: Refused, and so is --tls_key: TLS is the affair of a proxy before the server;
            docs/proxies.md has recipes for Caddy and nginx.
        tls_key: See --tls_cert.
        metrics_token_env: Name of the environment variable that holds the token for reading
            /metrics and the details of /health/ready; the token for changing the configuration
            opens them too.
        metrics_token_file: Path of a file that holds that token.
        log_format: How lines of the log are written, to stderr: "text", or "json" for objects.
        request_log: Write a line for each request.

    Example:
        private_pypi server ./root --config config.toml --admin_secret admin_secret.toml
    """
    from private_pypi.web import ServerOptions, run_server
    from private_pypi.web.operations.logs import Log
    from private_pypi.web.receiving import FormLimits

    problems = [
        f"--{flag} must be at least {least}, but is {number}"
        for flag, number, least in (
            ("auth_read_expires", auth_read_expires, 0),
            ("auth_write_expires", auth_write_expires, 0),
            ("max_form_bytes", max_form_bytes, 1),
            ("max_form_parts", max_form_parts, 1),
        )
        if number < least
    ]
    if not 0 <= port <= 65535:
        problems.append(f"--port must be from 0 to 65535, but is {port}")
    if log_format not in ("text", "json"):
        problems.append(f"--log_format must be text or json, but is {log_format!r}")
    if tls_cert is not None or tls_key is not None:
        problems.append(_no_tls(tls_cert, tls_key, port))
    try:
        extra_index_url = check_extra_index_url(extra_index_url)
    except ValueError as error:
        problems.append(f"--extra_index_url: {error}")
    if problems:
        raise UsageError("\n".join(problems))
    admin_token = one_secret(
        "admin_token", env=admin_token_env, file=admin_token_file, environ=environ
    )
    metrics_token = one_secret(
        "metrics_token", env=metrics_token_env, file=metrics_token_file, environ=environ
    )
    folder = usable_root(root)
    config_source, admin_secret_source = _sources(
        folder,
        config,
        admin_secret,
        can_be_text=config_or_admin_secret_can_be_text,
        environ=environ,
    )
    log = Log(sys.stderr, "json" if log_format == "json" else "text")
    options = ServerOptions(
        root=folder,
        config=config_source,
        admin_secret=admin_secret_source,
        auth_read_expires=timedelta(seconds=auth_read_expires),
        auth_write_expires=timedelta(seconds=auth_write_expires),
        extra_index_url=extra_index_url,
        debug=debug,
        host=host,
        port=port,
        admin_token=admin_token,
        allowed_env=frozenset(name.strip() for name in allow_env.split(",") if name.strip()),
        waitress_options=waitress_options,
        environ=environ,
        # What a file may have, its repository says.
        limits=FormLimits(
            max_file_bytes=0, max_field_bytes=max_form_bytes, max_parts=max_form_parts
        ),
        metrics_token=metrics_token,
        request_log=log if request_log else None,
    )
    log.install(debug=debug)
    run_server(options, announce=lambda url: say(f"private_pypi serves {url}"))


def _no_tls(cert: str | None, key: str | None, port: int) -> str:
    """PyPIHub served TLS with these flags; waitress cannot, and says nothing about them."""
    flags = [flag for flag, path in (("--tls_cert", cert), ("--tls_key", key)) if path is not None]
    return (
        f"{' and '.join(flags)}: this server speaks no TLS itself, a proxy before it does; with "
        f"Caddy that takes two lines in the block of the site, `tls {cert or 'CERT'} "
        f"{key or 'KEY'}` and `reverse_proxy 127.0.0.1:{port}` (docs/proxies.md, also for nginx)"
    )


def waitress_flags(texts: Texts) -> Sequence[Parameter]:
    """The flags of `server` that go to waitress."""
    from private_pypi.web.serving import option_names

    ours = {"host", "port"}
    return [
        Parameter(name=name, default=None, bare="true") for name in sorted(option_names() - ours)
    ]


def quickstart(
    root: str = "private-pypi-root",
    *,
    host: str = "127.0.0.1",
    port: int = 8888,
    name: str | None = None,
    environ: Mapping[str, str],
) -> None:
    """Start a server with one repository of its own, and print how to use it.

    The first start makes ROOT with a configuration (config.toml): one repository that keeps its
    files below ROOT, and random secrets to read and to write. Every later start serves what is
    there.

    Args:
        root: The folder to make, or made before.
        host: The address to listen on; only this machine reaches the default.
        port: The port to listen on.
        name: The repository; "mine" when ROOT is new.

    Example:
        private_pypi quickstart
    """
    from private_pypi.web import ServerOptions, run_server
    from private_pypi.web.operations.logs import Log

    if not 0 <= port <= 65535:
        raise UsageError(f"--port must be from 0 to 65535, but is {port}")
    folder = _private_root(root)
    path = folder / CONFIG
    if not path.exists():
        text = _new_configuration(name or "mine")
        # Checked before it is written: the name may be none.
        read_configuration(Source(text=text, name="--name", folder=folder), None, environ=environ)
        write_private(path, text, replace=False)
    shown = _shown_repository(path, name, environ)
    log = Log(sys.stderr, "text")
    options = ServerOptions(
        root=folder,
        config=None,  # what is kept in ROOT
        admin_secret=None,
        auth_read_expires=timedelta(hours=1),
        auth_write_expires=timedelta(minutes=5),
        extra_index_url=check_extra_index_url(PYPI_SIMPLE_ENDPOINT),
        debug=False,
        host=host,
        port=port,
        admin_token=None,
        allowed_env=frozenset(),
        waitress_options={},
        environ=environ,
        request_log=log,
    )
    log.install(debug=False)
    run_server(options, announce=lambda url: say(_welcome(url, shown, path)))


def _private_root(root: str) -> Path:
    """ROOT; when it is made here, only its owner may look into it."""
    if root:
        with contextlib.suppress(OSError, ValueError):  # what is wrong, `usable_root` says
            Path(root).mkdir(mode=0o700, parents=True)
    return usable_root(root)


def _sources(
    root: Path,
    config: str | None,
    admin_secret: str | None,
    *,
    can_be_text: bool,
    environ: Mapping[str, str],
) -> tuple[Source | None, Source | None]:
    """What --config and --admin_secret give; texts are kept in ROOT once they are checked."""
    sources: list[Source | None] = []
    texts: dict[Path, str] = {}
    for flag, value, file in (
        ("--config", config, root / CONFIG),
        ("--admin_secret", admin_secret, root / ADMIN_SECRET),
    ):
        if value is None:
            sources.append(None)
        elif not value:
            raise UsageError(f"{flag} is empty; leave it out, or give a path")
        elif can_be_text and not _exists(value):
            # A path that is misspelled is taken for a text as well.
            name = flag if "\n" in value else f"{flag} (the text, because it is no file)"
            sources.append(Source(text=value, name=name, folder=root))
            texts[file] = value
        else:
            sources.append(read_source(Path(value)))
    if texts and sources[0] is not None:
        read_configuration(sources[0], sources[1], environ=environ)
    for file, text in texts.items():
        write_private(file, text, replace=True)
    return sources[0], sources[1]


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # longer than a path can be, or with a NUL: a text
        return False


def _new_configuration(name: str) -> str:
    alphabet = string.ascii_letters + string.digits
    read, write = ("".join(secrets.choice(alphabet) for _ in range(32)) for _ in range(2))
    # A JSON string is a TOML string.
    return (
        "# One table for each repository. The user is the repository, the password a secret.\n"
        f"[{json.dumps(name)}]\n"
        'type = "file_system"\n'
        f'read_secret = "{read}"\n'
        f'write_secret = "{write}"\n'
    )


def _shown_repository(
    path: Path, name: str | None, environ: Mapping[str, str]
) -> RepositorySettings | None:
    admin_secret = path.with_name(ADMIN_SECRET)
    repositories = read_configuration(
        read_source(path),
        read_source(admin_secret) if admin_secret.exists() else None,
        environ=environ,
    ).repositories
    if name is None:
        own = (each for each in repositories.values() if each.type == "file_system")
        return next(own, None)
    if name.lower() not in repositories:
        raise ConfigurationError(
            f"{path} has no repository {name!r}{did_you_mean(name, repositories)}; "
            f"it has: {', '.join(repositories) or 'none'}"
        )
    return repositories[name.lower()]


def _welcome(url: str, shown: RepositorySettings | None, config: Path) -> str:
    if shown is None:
        return f"private_pypi serves {url} as {config} says"
    # 0.0.0.0 is where the server listens, not where clients go.
    base = url.rstrip("/").replace("//0.0.0.0:", "//127.0.0.1:")
    publish = f"{base}/r/{shown.name}/"
    index = f"{publish}simple/"
    name = shlex.quote(shown.name)
    read = _first_secret(shown, "read_secret") or _first_secret(shown, "write_secret")
    write = _first_secret(shown, "write_secret")
    scheme, _, rest = index.partition("://")
    userinfo = f"{quote(shown.name, safe='')}:{quote(read, safe='')}"
    readable = shlex.quote(f"{scheme}://{userinfo}@{rest}")
    upload = f"--username {name} --password {shlex.quote(write)}"
    return f"""\
private_pypi serves {index}
The configuration is {config}; Ctrl-C ends the server.

Publish what is in dist/
    twine upload --repository-url {publish} {upload} dist/*
    uv publish --publish-url {publish} {upload} dist/*

Install
    pip install --index-url {readable} PACKAGE
    uv pip install --index-url {readable} PACKAGE

Look
    {base}/ in a browser; sign in with {shown.name} and a password of above

Poetry
    poetry config repositories.{name} {publish}
    poetry config http-basic.{name} {name} {shlex.quote(write)}
    poetry publish --build --repository {name}
    poetry source add --priority=primary {name} {index}
    poetry add PACKAGE
"""


def _first_secret(shown: RepositorySettings, field: str) -> str:
    found: tuple[Secret, ...] = getattr(shown.backend, field, ())
    return found[0].reveal() if found else ""
