"""The commands `server` and `quickstart`, which run a server."""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from private_pypi.backend import Secret, SupportsUpstream, can
from private_pypi.backend.public_index import public_index_url
from private_pypi.commands.command_line import Parameter, Texts, UsageError
from private_pypi.commands.files import (
    one_secret,
    say,
    usable_root,
)
from private_pypi.configuration.config import (
    ConfigurationText,
    GroupSettings,
    RepositorySettings,
    read_configuration,
    read_source,
)
from private_pypi.configuration.kept import CONFIG, KeptConfiguration
from private_pypi.errors import ConfigurationError, cause_of
from private_pypi.storage.plugins import did_you_mean
from private_pypi.web import run_server
from private_pypi.web.options import ServerOptions
from private_pypi.web.serving import option_names
from private_pypi.web.serving.engines import serve_of

# The names of the tables that `quickstart --with_public` makes.
_MIRROR = "pypi"
_GROUP = "all"


def server(
    root: str,
    *,
    config: str | None = None,
    admin_secret: str | None = None,
    config_or_admin_secret_can_be_text: bool = False,
    auth_read_expires: int = ServerOptions.auth_read_expires,
    auth_write_expires: int = ServerOptions.auth_write_expires,
    extra_index_url: str = ServerOptions.extra_index_url,
    debug: bool = False,
    host: str = ServerOptions.host,
    port: int = ServerOptions.port,
    workers: int = ServerOptions.workers,
    admin_token_env: str | None = None,
    admin_token_file: str | None = None,
    allow_env: str = "",
    allow_address: str = "",
    host_names: str = "",
    max_form_bytes: int = ServerOptions.max_form_bytes,
    max_form_parts: int = ServerOptions.max_form_parts,
    engine: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    metrics_token_env: str | None = None,
    metrics_token_file: str | None = None,
    log_format: str = ServerOptions.log_format,
    request_log: bool = ServerOptions.request_log,
    security_txt: str | None = None,
    session_key_file: str | None = None,
    stop_delay: int = ServerOptions.stop_delay,
    environ: Mapping[str, str],
    **waitress_options: str,
) -> None:
    """Run a server that serves the repositories of a configuration.

    Each repository is served at http://HOST:PORT/r/<repository>/simple/. The short address
    http://HOST:PORT/simple/ also works if there is only one repository, or if the user name of
    the request is the name of the repository.
    Without --config, the server uses the configuration that was submitted to /initialize/ earlier
    and stored in ROOT. If there is none yet, it waits for one to be submitted.
    To stop the server, send SIGTERM or SIGINT (Ctrl-C), or close its terminal. It first completes
    the requests that are in progress, for at most 30 seconds. With --stop_delay, it first continues
    to accept new ones.
    The other flags, at the end, are passed on to waitress, the HTTP server library that the server
    uses. With --engine granian, they have the same meaning or are refused (docs/engines.md).

    Args:
        root: The folder in which the server keeps its local indexes, caches, locks and temporary
            files. It is created if it does not exist, and must be on a local disk.
        config: Path of the configuration file (TOML), which has a table for each repository. With
            --config_or_admin_secret_can_be_text it may also be the text of the configuration.
        admin_secret: Path of the file of admin secrets (TOML), or its text under the same
            condition. These are the secrets that the server itself uses to access storages. A
            file_system repository needs none.
        config_or_admin_secret_can_be_text: If the value of --config or --admin_secret is not the
            path of an existing file, take it as the text itself, and store the text in ROOT.
        auth_read_expires: For how many seconds the server remembers that a secret may read,
            before it asks the storage again.
        auth_write_expires: For how many seconds the server remembers that a secret may write,
            before it asks the storage again.
        extra_index_url: The index to which requests for unknown projects are redirected; an empty
            text disables it.
        debug: Write more to the log, and show a traceback if the server ends with an error.
        host: The address to listen on. The default means all IPv4 addresses of the machine.
        port: The port to listen on; 0 chooses a free one, which is printed.
        workers: The number of processes that answer requests, such as one for each core. With more
            than 1, a parent process starts them and replaces those that die. Flags for connections
            and threads apply to each of them.
        admin_token_env: Name of the environment variable that holds the admin token, which is
            needed to change the configuration over HTTP.
        admin_token_file: Path of a file that holds the admin token.
        allow_env: Names of environment variables, separated by commas, that a configuration
            submitted over HTTP may read.
        allow_address: Addresses, separated by commas, that may be given as api_url in a
            configuration that is submitted over HTTP without the admin token. With the admin
            token, any address may be given.
        host_names: The host names under which clients reach the server, separated by commas.
            Requests for other host names are refused, except for IP addresses, localhost and
            names without dots. If this flag is not given, requests for all names are answered,
            but a configuration submitted without the admin token is refused under any name with
            dots.
        max_form_bytes: The maximum size in bytes of all fields of an upload form together,
            without the file. The description of a package is one of these fields.
        max_form_parts: The maximum number of fields in an upload form.
        engine: What handles the connections: "waitress", or "granian" for TLS and HTTP/2, which
            needs the extra private-pypi[granian]. Without this flag, granian is used if there is a
            certificate, else waitress. docs/engines.md compares them.
        tls_cert: Path of a certificate in PEM, followed by those of its issuers. With --tls_key,
            the server uses TLS. A new certificate is used as soon as the files are replaced.
        tls_key: Path of the private key of this certificate in PEM, without a password.
        metrics_token_env: Name of the environment variable that holds the metrics token, which is
            needed to read /metrics and the details of /health/ready. The admin token can be used
            for these as well.
        metrics_token_file: Path of a file that holds the metrics token.
        log_format: The format of the log, which is written to stderr: "text", or "json" for one
            JSON object per line.
        request_log: Write a line to the log for each request.
        security_txt: Path of a file that is served as /.well-known/security.txt (RFC 9116). It
            says how to report a vulnerability. Without this flag, that address is answered with
            404.
        session_key_file: Path of a file with the key for the sessions of people who sign in, for
            several servers that share sessions. Without this flag, the key is that of the
            environment variable PRIVATE_PYPI_SECRET_KEY, or else one that the server keeps in ROOT.
        stop_delay: For how many seconds after SIGTERM the server still accepts requests, while
            /health/ready is answered with 503, so that a load balancer stops using the server.

    Example:
        private_pypi server ./root --config config.toml --admin_secret admin_secret.toml
    """
    try:
        options = ServerOptions(
            root=Path(root),
            environ=environ,
            auth_read_expires=auth_read_expires,
            auth_write_expires=auth_write_expires,
            extra_index_url=extra_index_url,
            debug=debug,
            host=host,
            port=port,
            workers=workers,
            allow_env=_listed(allow_env),
            allow_address=_listed(allow_address),
            host_names=_listed(host_names.lower()),
            max_form_bytes=max_form_bytes,
            max_form_parts=max_form_parts,
            log_format=log_format,
            request_log=request_log,
            engine=engine,
            tls_cert=None if tls_cert is None else Path(tls_cert),
            tls_key=None if tls_key is None else Path(tls_key),
            stop_delay=stop_delay,
            waitress_options=waitress_options,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    # Both are checked before anything is opened or written.
    serve_of(options.used_engine)
    if options.certificate is not None:
        options.certificate.check()
    options = replace(
        options,
        admin_token=one_secret(
            "admin_token", env=admin_token_env, file=admin_token_file, environ=environ
        ),
        metrics_token=one_secret(
            "metrics_token", env=metrics_token_env, file=metrics_token_file, environ=environ
        ),
        root=usable_root(root),
    )
    config_source, admin_secret_source = _sources(
        options.root,
        config,
        admin_secret,
        can_be_text=config_or_admin_secret_can_be_text,
        environ=environ,
    )
    options = replace(
        options,
        config=config_source,
        admin_secret=admin_secret_source,
        security_txt=None if security_txt is None else _security_txt(security_txt),
        session_key=None if session_key_file is None else read_source(Path(session_key_file)),
    )
    run_server(options, announce=lambda url: say(f"private_pypi serves {url}"))


def _listed(text: str) -> frozenset[str]:
    return frozenset(each.strip() for each in text.split(",") if each.strip())


def _security_txt(path: str) -> str:
    try:
        text = Path(path).read_text()
    except (OSError, ValueError) as error:
        raise UsageError(f"--security_txt: {path} cannot be read: {error}") from error
    missing = [field for field in ("Contact:", "Expires:") if field not in text]
    if missing:
        raise UsageError(f"--security_txt: {path} must have {' and '.join(missing)} (RFC 9116)")
    return text


def waitress_flags(texts: Texts) -> Sequence[Parameter]:
    """The flags of `server` that are passed on to waitress."""
    ours = {"host", "port"}
    return [Parameter(name=name, default=None, bare=True) for name in sorted(option_names() - ours)]


def quickstart(
    root: str = "private-pypi-root",
    *,
    host: str = "127.0.0.1",
    port: int = ServerOptions.port,
    name: str | None = None,
    with_public: bool = False,
    index_url: str = public_index_url(),
    environ: Mapping[str, str],
) -> None:
    """Start a server with one new repository, and print how to use it.

    The first start creates the folder ROOT with a configuration file (config.toml). It defines
    one repository, which stores its files inside ROOT and has two random secrets: one for
    reading, and one for reading and writing. If ROOT exists already, its repository is served
    again.
    With --with_public, which is recommended, the configuration also has a mirror of the public
    index, and a group of both, so that one address is enough for all packages. Releases
    of the public index are served from three days after their upload on, because most malicious
    ones are found before. To change that, edit `cooldown` in the configuration file.
    Without --with_public, requests for projects that the repository does not have are redirected
    to the public index.

    Args:
        root: The folder of the server. It is created if it does not exist.
        host: The address to listen on. The default can be reached from this machine only.
        port: The port to listen on.
        name: The name of the repository. In a new ROOT, it is "mine" if this flag is not given.
        with_public: Serve the packages of the public index as well, through a mirror of it.
        index_url: With --with_public, the address of the index that is mirrored.

    Example:
        private_pypi quickstart --with_public
    """
    try:
        options = ServerOptions(root=Path(root), environ=environ, host=host, port=port)
    except ValueError as error:
        raise UsageError(str(error)) from error
    folder = _private_root(root)
    path = folder / CONFIG
    text = _new_configuration(name or "mine")
    if with_public:
        text += _with_public(name or "mine", index_url)
    if not path.exists():
        # Check it before it is written, because the name may be invalid.
        read_configuration(
            ConfigurationText(text=text, name="--name", folder=folder), None, environ=environ
        )
    kept = KeptConfiguration(folder)
    with kept.locked():
        if kept.state() is None:
            kept.replace(config=text)
        config, admin_secret = kept.read()
    assert config is not None
    shown = _shown(config, admin_secret, name, environ)
    if with_public and (shown is None or shown.group is None):
        raise ConfigurationError(_cannot_add_public(path, shown, index_url))
    options = replace(options, root=folder)
    run_server(options, announce=lambda url: say(_welcome(url, shown, path)))


def _private_root(root: str) -> Path:
    """ROOT as an absolute path. If it is created here, only its owner may read it."""
    if root:
        with contextlib.suppress(OSError, ValueError):  # `usable_root` raises a better error
            Path(root).mkdir(mode=0o700, parents=True)
            # It contains secrets, which must not be committed if it is in a checkout.
            (Path(root) / ".gitignore").write_text("*\n")
    return usable_root(root)


def _sources(
    root: Path,
    config: str | None,
    admin_secret: str | None,
    *,
    can_be_text: bool,
    environ: Mapping[str, str],
) -> tuple[ConfigurationText | None, ConfigurationText | None]:
    """The values of --config and --admin_secret. Texts are checked and stored in ROOT."""
    sources: list[ConfigurationText | None] = []
    texts: list[str | None] = []
    for flag, value in (("--config", config), ("--admin_secret", admin_secret)):
        text = None
        if value is None:
            sources.append(None)
        elif not value:
            raise UsageError(f"{flag} is empty; leave it out, or give a path")
        elif can_be_text and not _exists(value):
            # A misspelled path is taken for a text as well, so errors say how it was understood.
            name = flag if "\n" in value else f"{flag} (taken as text: there is no such file)"
            sources.append(ConfigurationText(text=value, name=name, folder=root))
            text = value
        else:
            sources.append(read_source(Path(value)))
        texts.append(text)
    if texts != [None, None]:
        _keep(root, sources, texts, environ)
    return sources[0], sources[1]


def _keep(
    root: Path,
    sources: Sequence[ConfigurationText | None],
    texts: Sequence[str | None],
    environ: Mapping[str, str],
) -> None:
    if sources[0] is not None:  # check it before it is written
        read_configuration(sources[0], sources[1], environ=environ)
    kept = KeptConfiguration(root)
    with kept.locked():
        kept_config = kept.read()[0]
        if sources[0] is None and kept_config is not None:
            read_configuration(kept_config, sources[1], environ=environ)
        try:
            kept.replace(config=texts[0], admin_secret=texts[1])
        except OSError as error:
            raise ConfigurationError(
                f"the configuration could not be stored in {root}: {cause_of(error)}"
            ) from error


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long for a path, or with a NUL character
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


def _with_public(name: str, index_url: str) -> str:
    """The tables that put a repository and the public index behind one address."""
    if name.lower() in (_MIRROR, _GROUP):
        raise UsageError(
            f"--name: with --with_public, {_MIRROR!r} is the mirror of the public index, and "
            f"{_GROUP!r} the group of both; choose another name for the repository"
        )
    upstream = "" if index_url == public_index_url() else f"index_url = {json.dumps(index_url)}\n"
    return f"""
# The public index. Pages and files are fetched when somebody asks for them, and kept.
[{_MIRROR}]
type = "mirror"
{upstream}\
# Younger releases are served to nobody, because most malicious ones are found within days.
# `private_pypi allow` makes exceptions; without this line, every release is served at once.
cooldown = "3 days"

# Both behind one address, which takes the secrets of {json.dumps(name)}. What {json.dumps(name)}
# has or ever had, and the names in `claimed`, never come from the public index.
[{_GROUP}]
type = "group"
members = [{json.dumps(name)}, "{_MIRROR}"]
publish_to = {json.dumps(name)}
# claimed = ["acme-*"]  # names that you want to keep for yourself before you publish them
"""


def _cannot_add_public(path: Path, shown: _Shown | None, index_url: str) -> str:
    """What to do in a ROOT whose configuration is not changed, because it belongs to somebody."""
    name = "mine" if shown is None else shown.storage.name
    tables = "".join(
        f"{line}\n"
        for line in _with_public(name, index_url).splitlines()
        if line and line[0] != "#"
    )
    return (
        f"--with_public: {path} exists already, and has no group with a mirror for "
        f"{name!r}. Add these tables to it, and run the command again:\n{tables}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """What the commands that are printed are for."""

    storage: RepositorySettings  # has the secrets, and what is published
    group: GroupSettings | None  # whose address is shown; None: that of the repository

    @property
    def name(self) -> str:
        return self.storage.name if self.group is None else self.group.name


def _shown(
    config: ConfigurationText,
    admin_secret: ConfigurationText | None,
    name: str | None,
    environ: Mapping[str, str],
) -> _Shown | None:
    """The repository of this name (None: the first in a folder), with a group that publishes to it.

    None: there is no repository in a folder.
    """
    configuration = read_configuration(config, admin_secret, environ=environ)
    repositories = configuration.repositories
    groups = configuration.groups.values()
    if name is None:
        own = (each for each in repositories.values() if each.type == "file_system")
        storage = next(own, None)
    elif name.lower() in configuration.groups:
        group = configuration.groups[name.lower()]
        found = repositories.get(group.publish_to or "")
        return None if found is None else _Shown(storage=found, group=group)
    elif name.lower() in repositories:
        storage = repositories[name.lower()]
    else:
        known = (*repositories, *configuration.groups)
        raise ConfigurationError(
            f"{config.name}: there is no repository {name!r}{did_you_mean(name, known)}; "
            f"it has: {', '.join(known) or 'none'}"
        )
    if storage is None:
        return None
    publishing = (each for each in groups if each.publish_to == storage.name)
    with_mirror = (
        each
        for each in publishing
        if any(
            member in repositories and can(repositories[member].backend_class, SupportsUpstream)
            for member in each.members
        )
    )
    return _Shown(storage=storage, group=next(with_mirror, None))


def _welcome(url: str, shown: _Shown | None, config: Path) -> str:
    if shown is None:
        return f"private_pypi serves {url} with the configuration {config}"
    from private_pypi.web.people.tool_settings import ToolSettings

    # The server can listen on 0.0.0.0, but clients need another address.
    base = url.rstrip("/").replace("//0.0.0.0:", "//127.0.0.1:")
    publish = f"{base}/r/{shown.name}/"
    index = f"{publish}simple/"
    name = shlex.quote(shown.name)
    tools = ToolSettings(base=base, repository=shown.name, needs_secret=True)
    index_name = tools.index_name
    variables = f"UV_INDEX_{tools.variable}_USERNAME={name} UV_INDEX_{tools.variable}_PASSWORD="
    write = _first_secret(shown.storage, "write_secret")
    read = _first_secret(shown.storage, "read_secret") or write
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
    uv pip install --default-index {readable} PACKAGE

In a project of uv
    export {variables}{shlex.quote(read)}
    uv add --default-index {index_name}={index} PACKAGE

In a clone of such a project, once on each machine, because the project does not have the password
    uv auth login {index} --username {name} --password {shlex.quote(read)}
    uv sync

Web pages
    {base}/ in a browser; sign in with {shown.name} and a password from above

Poetry
    poetry config repositories.{index_name} {publish}
    poetry config http-basic.{index_name} {name} {shlex.quote(write)}
    poetry publish --build --repository {index_name}
    poetry source add --priority=primary {index_name} {index}
    poetry add PACKAGE

{_end_of_welcome(shown)}
Give these tools no second index, because they would look for your own projects there too
(docs/clients.md).
"""


def _end_of_welcome(shown: _Shown) -> str:
    if shown.group is None:
        return (
            "This index takes the place of the public one, and sends tools on to it for what it "
            "does not have."
        )
    own = shown.storage.name
    return (
        f"This one address has the packages of {own} and those of the public index. What {own} has "
        "never comes\nfrom the public index. Public releases are served when they are as old as "
        "`cooldown` in the\nconfiguration says (docs/group.md, docs/policy.md)."
    )


def _first_secret(shown: RepositorySettings, field: str) -> str:
    found: tuple[Secret, ...] = getattr(shown.backend, field, ())
    return found[0].reveal() if found else ""
