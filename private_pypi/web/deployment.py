"""The repositories that a server process serves, and the use of a new configuration.

Every process watches the files that its configuration was read from: the configuration itself, the
admin secrets, and the files with secrets that these name. So a secret is changed by writing a file,
and a configuration that was submitted to one process is used by all processes of its ROOT.
"""

from __future__ import annotations

import errno
import gc
import hmac
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

from private_pypi.backend import Secret
from private_pypi.configuration.config import (
    Configuration,
    ConfigurationText,
    RepositorySettings,
    Submitted,
    read_configuration,
    read_source,
)
from private_pypi.configuration.kept import KeptConfiguration
from private_pypi.errors import (
    AlreadyConfigured,
    BackendError,
    ConfigurationError,
    NotAllowed,
    PrivatePypiError,
    StorageFull,
    WrongSecret,
    cause_of,
)
from private_pypi.repositories import Credentials, Repositories, has_state
from private_pypi.system.temporary_folder import TemporaryFolder
from private_pypi.web.http.hosts import cannot_be_rebound, is_named
from private_pypi.web.operations.audit import AuditLog, entry_time
from private_pypi.web.operations.changes import Changes
from private_pypi.web.operations.worker import Worker
from private_pypi.web.options import ServerOptions

logger = logging.getLogger(__name__)

_FOLLOW_EVERY = 1.0  # seconds between two checks of the files of the configuration
_FIRST_SYNC = 5.0  # seconds to wait for the first synchronisation of new repositories
_OLD_REQUESTS = 60.0  # seconds that requests have to finish with the old configuration


class Deployment:
    """The repositories of this process; `close` it at the end."""

    def __init__(self, options: ServerOptions, worker: Worker | None = None) -> None:
        """Use the given configuration, or else the one that was submitted to this ROOT.

        `worker` is the place of this process among those of the server; None: it is the only one.
        Raises `ConfigurationError`. If a storage is in trouble, this does not raise; only the
        repository of that storage is affected.
        """
        self.options = options
        self.worker = worker
        self.root = root = options.root
        self.environ = options.environ
        self._submitted = Submitted(
            root=root,
            allowed_env=options.allow_env,
            allowed_addresses=options.allow_address,
        )
        self._change_lock = threading.Lock()  # held while _repositories are replaced
        self._looked_at = 0.0
        self._followed = self._submissions  # as of the configuration that is used
        self._own_tmp = TemporaryFolder(root)
        self.tmp = self._own_tmp.folder
        self.changes = Changes(AuditLog(root))
        self._kept = KeptConfiguration(root)
        self._files: tuple[Path, ...] = ()  # the files that the configuration was read from
        self._state: object = None
        self._replaced: list[Repositories] = []  # which are still open for old requests
        self._repositories = self._build(self._read())
        if not len(self._repositories):
            logger.info("there is no configuration yet; POST /initialize/ takes one")
        self._repositories.start(wait=_FIRST_SYNC)

    @property
    def repositories(self) -> Repositories:
        """The present repositories. A request gets them once and uses them until its end."""
        if self._is_due:
            self._follow()
        return self._repositories

    @property
    def known_repositories(self) -> Repositories | None:
        """The same, but None if the files of the configuration have to be checked first."""
        return None if self._is_due else self._repositories

    @property
    def last_repositories(self) -> Repositories:
        """The repositories as of the last check of the files. Does not read from disk."""
        return self._repositories

    def close(self) -> None:
        """Stop all repositories and remove temporary files."""
        self._repositories.close()
        for old in [*self._replaced]:
            self._close_replaced(old)
        self.changes.close()
        self._own_tmp.close()

    def serves(self, host: str | None) -> bool:
        """Whether requests with this `Host` are answered (see `hosts`)."""
        names = self.options.host_names
        return not names or is_named(host, names) or cannot_be_rebound(host)

    def require_served(self, host: str | None) -> None:
        """Raise `NotAllowed` unless requests with this `Host` are answered."""
        if not self.serves(host):
            raise NotAllowed(
                f"this server does not answer under the name {host!r}; if this is one of its "
                "names, the operator can add it to --host_names"
            )

    # -- operators -------------------------------------------------------------------------------

    def require_operator(self, credentials: Credentials | None) -> None:
        """Raise unless the caller sends the token for metrics or the admin token.

        It does not matter from where the request comes, because behind a proxy on this machine all
        requests come from this machine. Raises `NotAllowed` or `WrongSecret`.
        """
        tokens = [
            token for token in (self.options.metrics_token, self.options.admin_token) if token
        ]
        if not tokens:
            raise NotAllowed(
                "only the operator of the server may see this; start it with --metrics_token_env "
                "or --metrics_token_file, and send that token (as a Basic password or Bearer)"
            )
        if not any(_shows(credentials, token) for token in tokens):
            raise WrongSecret(
                "the token for metrics or the admin token is needed (as a Basic password or Bearer)"
            )

    # -- POST /initialize/ -----------------------------------------------------------------------

    def authorize_initialize(self, credentials: Credentials | None, host: str | None) -> bool:
        """Whether the caller sent the admin token. Raises if it is needed and was not sent.

        It is not needed while nothing is configured, if the `Host` is one that a page of another
        site cannot have (see `hosts`). Raises `AlreadyConfigured`, `NotAllowed` or `WrongSecret`.
        """
        if self.options.config is not None:
            raise AlreadyConfigured(
                "this server was started with --config, so it does not take a configuration over "
                "HTTP; change that file"
            )
        has_token = _shows(credentials, self.options.admin_token)
        if not has_token:
            self._require_unconfigured(credentials)
            if not cannot_be_rebound(host) and not is_named(host, self.options.host_names):
                raise NotAllowed(
                    "without the admin token, the Host of this request must be an IP address, "
                    f"localhost or a name without dots, not {host!r}, because a page of another "
                    "site could have sent it; start the server with --host_names and this name, "
                    "or send "
                    "the admin token"
                )
        return has_token

    def initialize(self, config: str, admin_secret: str | None, *, trusted: bool) -> None:
        """Replace the present configuration, which stays in use if this raises.

        `trusted` says that the caller sent the admin token. Otherwise, a repository with the name
        of an existing storage or local index is refused: the caller chooses the secrets of the
        repository, and could read and change what is there. Raises `ConfigurationError` and others.
        """
        if self.options.admin_secret is not None and admin_secret is not None:
            raise AlreadyConfigured(
                "this server was started with --admin_secret, so it does not take an admin_secret "
                "over HTTP; leave it out, or change that file"
            )
        source = ConfigurationText(text=config, name="config", folder=self.root)
        configuration = read_configuration(
            source,
            None
            if admin_secret is None
            else ConfigurationText(text=admin_secret, name="admin_secret", folder=self.root),
            environ=self.environ,
            submitted=replace(self._submitted, is_trusted=trusted),
        )
        if self.options.admin_secret is not None:
            # The next start reads both together, so check both. The rules for submissions do not
            # apply to the operator's file.
            configuration = read_configuration(
                source, self.options.admin_secret, environ=self.environ
            )
        if not configuration.repositories:
            raise ConfigurationError("config: it has no repository; each one is a table, [name]")
        with self._change_lock:
            # The lock decides between two callers at the same time, even in different processes.
            with self._kept.locked():
                if not trusted:
                    self._require_unconfigured(None)
                    self._require_unused(configuration)
                built = self._build(configuration)
                try:
                    self._keep(config, admin_secret or "")
                except BaseException:
                    built.close()
                    raise
                self._noted(configuration)
                self._state = self._found_state()
                if self.worker is not None:
                    self._followed = self.worker.shared.submissions.note()
            self._exchange(built)

    def _require_unused(self, configuration: Configuration) -> None:
        for settings in configuration.repositories.values():
            if has_state(self.root, settings.name) or _reaches_existing(settings):
                self._refuse(None, f"there is already a storage with the name {settings.name!r}")

    def _require_unconfigured(self, credentials: Credentials | None) -> None:
        if len(self._repositories) or self._kept.state() is not None:
            self._refuse(credentials, "the server has a configuration")

    def _refuse(self, credentials: Credentials | None, why: str) -> None:
        if not self.options.admin_token:
            raise NotAllowed(
                f"{why}; to change it over HTTP start the server with --admin_token_env "
                "and send that token"
            )
        if credentials is None:
            raise WrongSecret(f"{why}: the admin token is needed (as a Basic password or Bearer)")
        raise WrongSecret(f"{why}: wrong admin token")

    # -- changes of the files --------------------------------------------------------------------

    @property
    def _submissions(self) -> int:
        """How many configurations were submitted to all workers of the server."""
        return 0 if self.worker is None else self.worker.shared.submissions.count

    @property
    def _is_due(self) -> bool:
        return (
            self._followed != self._submissions
            or time.monotonic() - self._looked_at > _FOLLOW_EVERY
        )

    def _follow(self) -> None:
        """Use the configuration anew if its files have changed. Its errors are logged once.

        After a configuration was submitted to another worker, no request is answered with the
        former one, because the client was told that the new one is used.
        """
        self._looked_at = time.monotonic()
        if self._followed == self._submissions and self._found_state() == self._state:
            return
        with self._change_lock:
            submissions = self._submissions  # before the files are read
            if self._found_state() != self._state:
                self._use_anew()
            self._followed = submissions

    def _use_anew(self) -> None:
        try:
            built = self._build(self._read())
        except PrivatePypiError as error:
            logger.error("the changed configuration is not used: %s", error)
            return
        self._exchange(built)
        logger.info("the configuration has changed and is used from now on")

    def _read(self) -> Configuration:
        """Read the given configuration, or else the one in ROOT."""
        # The state is noted first, so that a change during reading is found at the next check.
        self._state = self._found_state()
        admin_secret = _as_it_is_now(self.options.admin_secret)
        if self.options.config is None:
            with self._kept.locked():
                self._state = self._found_state()
                config, kept_admin_secret = self._kept.read()
            admin_secret = admin_secret or kept_admin_secret
        else:
            config = _as_it_is_now(self.options.config)
        if config is None:
            return Configuration(repositories={})
        # The rules for submissions are not applied here: a submitted configuration was checked
        # before it was written to ROOT, and others were written there by the operator.
        return self._noted(read_configuration(config, admin_secret, environ=self.environ))

    def _noted(self, configuration: Configuration) -> Configuration:
        """Watch the files of this configuration from now on, and return it."""
        files = tuple(sorted(configuration.files))
        if files != self._files:
            self._files = files
            self._state = self._found_state()
        return configuration

    def _found_state(self) -> object:
        """A value that differs when a file of the configuration has changed."""
        kept = self._kept.state() if self.options.config is None else None
        return kept, tuple(_stamp(path) for path in self._files)

    def _keep(self, config: str, admin_secret: str) -> None:
        try:
            self._kept.replace(config=config, admin_secret=admin_secret)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (StorageFull if full else BackendError)(
                f"the configuration could not be kept in ROOT: {cause_of(error)}"
            ) from error

    def _exchange(self, built: Repositories) -> None:
        built.start(wait=_FIRST_SYNC)
        old, self._repositories = self._repositories, built
        self._replaced.append(old)
        timer = threading.Timer(_OLD_REQUESTS, self._close_replaced, [old])
        timer.daemon = True
        timer.start()

    def _close_replaced(self, old: Repositories) -> None:
        """Close it, unless another thread does or did."""
        try:
            self._replaced.remove(old)
        except ValueError:
            return
        old.close()
        # A connection to a local index is part of a cycle (sqlite3 makes it), so only this closes
        # it. On a quiet server, Python would not look for garbage for weeks.
        gc.collect()

    def _build(self, configuration: Configuration) -> Repositories:
        return Repositories(
            configuration,
            root=self.root,
            tmp=self.tmp,
            expiry=self.options.expiry,
            extra_index_url=self.options.extra_index_url,
            note_allowance=self._note_allowance,
        )

    def _note_allowance(self, repository: str, entry: Mapping[str, object]) -> None:
        """Write an audit line for a file that is served only because somebody has allowed it."""
        self.changes.audit.append(
            {
                "time": entry_time(datetime.now(UTC)),
                "action": "use_allowance",
                "outcome": "done",
                "repository": repository,
                **entry,
            }
        )


def _shows(credentials: Credentials | None, token: Secret | None) -> bool:
    if credentials is None or not token:
        return False
    return hmac.compare_digest(
        # A token that comes from an environment variable may not be valid UTF-8.
        credentials.secret.reveal().encode("utf-8", "surrogatepass"),
        token.reveal().encode("utf-8", "surrogatepass"),
    )


def _as_it_is_now(source: ConfigurationText | None) -> ConfigurationText | None:
    """A source that was read from a file is read again; any other is returned."""
    return source if source is None or source.path is None else read_source(source.path)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _reaches_existing(settings: RepositorySettings) -> bool:
    paths = (getattr(settings.backend, field.name) for field in fields(settings.backend))
    return any(isinstance(path, Path) and path.exists() for path in paths)
