"""What one server process serves right now, and how a new configuration takes its place.

All processes of a ROOT follow a configuration that was submitted to one of them.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from filelock import FileLock, Timeout

from private_pypi.backend import Secret
from private_pypi.config import (
    Configuration,
    RepositorySettings,
    Source,
    Submitted,
    read_configuration,
)
from private_pypi.errors import (
    AlreadyConfigured,
    ConfigurationError,
    NotAllowed,
    PrivatePypiError,
    WrongSecret,
)
from private_pypi.private_files import write_private
from private_pypi.repositories import Credentials, Repositories, has_state
from private_pypi.verdicts import Expiry
from private_pypi.web.operations.audit import AuditLog
from private_pypi.web.operations.changes import Changes

logger = logging.getLogger(__name__)

_FOLLOW_EVERY = 1.0  # seconds between two looks at ROOT/config.toml
_FIRST_SYNC = 5.0  # seconds that a start waits for repositories that were never synchronised
_OLD_REQUESTS = 60.0  # seconds after which requests that began before a change have ended


class Deployment:
    """The repositories of this process; `close` it at the end."""

    def __init__(
        self,
        root: Path,
        *,
        config: Source | None,
        admin_secret: Source | None,
        expiry: Expiry,
        extra_index_url: str,
        admin_token: Secret | None,
        allowed_env: frozenset[str],
        environ: Mapping[str, str],
        metrics_token: Secret | None = None,
    ) -> None:
        """Take up a configuration: the given one, else what was submitted to this ROOT.

        Raises `ConfigurationError`; trouble of a storage is its repository's alone.
        """
        self.root = root
        self._given = config is not None
        self._given_admin_secret = admin_secret
        self._expiry = expiry
        self._extra_index_url = extra_index_url
        self._admin_token = admin_token
        self._metrics_token = metrics_token
        self._submitted = Submitted(root=root, allowed_env=allowed_env)
        self.environ = environ
        self._change_lock = threading.Lock()  # guards the exchange of _repositories
        self._looked_at = 0.0
        self._own_tmp = _OwnTmp(root)
        self.tmp = self._own_tmp.folder
        self.changes = Changes(AuditLog(root))
        self._kept: tuple[int, int] | None = None
        if config is not None:
            configuration = read_configuration(config, admin_secret, environ=environ)
        else:
            self._kept = self._state_of_kept()
            configuration = self._read_kept()
        self._repositories = self._build(configuration)
        if not len(self._repositories):
            logger.info("there is no configuration yet; POST /initialize/ takes one")
        self._repositories.start(wait=_FIRST_SYNC)

    @property
    def repositories(self) -> Repositories:
        """What is served now; a request takes it once and keeps it to its end."""
        if not self._given and time.monotonic() - self._looked_at > _FOLLOW_EVERY:
            self._follow()
        return self._repositories

    @property
    def known_repositories(self) -> Repositories | None:
        """The same without a look at the disk; None when it is time for one."""
        is_due = not self._given and time.monotonic() - self._looked_at > _FOLLOW_EVERY
        return None if is_due else self._repositories

    def close(self) -> None:
        """Stop everything and remove what is temporary."""
        self._repositories.close()
        self.changes.close()
        self._own_tmp.close()

    # -- operators -------------------------------------------------------------------------------

    def require_operator(self, credentials: Credentials | None) -> None:
        """Raise unless the caller shows the token for metrics, or the admin token.

        Where it comes from does not count: behind a proxy of this machine everybody does from here.
        """
        tokens = [token for token in (self._metrics_token, self._admin_token) if token]
        if not tokens:
            raise NotAllowed(
                "this is for those who operate the server; start it with --metrics_token_env or "
                "--metrics_token_file, and send that token (as a Basic password or Bearer)"
            )
        if not any(_shows(credentials, token) for token in tokens):
            raise WrongSecret(
                "the token for metrics or the admin token is needed (as a Basic password or Bearer)"
            )

    # -- POST /initialize/ -----------------------------------------------------------------------

    def authorize_initialize(self, credentials: Credentials | None) -> bool:
        """Whether the caller showed the admin token; raises when one is needed and was not shown.

        Free only while nothing is configured.
        """
        if self._given:
            raise AlreadyConfigured(
                "this server was started with --config, which wins; "
                "change that file and start the server again"
            )
        has_token = _shows(credentials, self._admin_token)
        if not has_token:
            self._require_unconfigured(credentials)
        return has_token

    def initialize(self, config: str, admin_secret: str | None, *, trusted: bool) -> None:
        """Take the place of the present configuration; anything wrong leaves that one serving.

        `trusted`: the caller showed the admin token. Without it no name is taken that has a store
        or an index below ROOT: that would hand them to a new secret.
        """
        configuration = read_configuration(
            Source(text=config, name="config", folder=self.root),
            None
            if admin_secret is None
            else Source(text=admin_secret, name="admin_secret", folder=self.root),
            environ=self.environ,
            submitted=self._submitted,
        )
        if not configuration.repositories:
            raise ConfigurationError("config: it has no repository; each one is a table, [name]")
        # Of two strangers who come at once, to whatever process, one is the first.
        with self._change_lock, FileLock(self.root / ".config.toml.lock"):
            if not trusted:
                self._require_unconfigured(None)
                for settings in configuration.repositories.values():
                    if has_state(self.root, settings.name) or _reaches_existing(settings):
                        self._refuse(
                            None, f"a store exists already under the name {settings.name!r}"
                        )
            built = self._build(configuration)
            try:
                self._keep(config, admin_secret)
            except BaseException:
                built.close()
                raise
            self._exchange(built)

    def _require_unconfigured(self, credentials: Credentials | None) -> None:
        if len(self._repositories) or self._state_of_kept() is not None:
            self._refuse(credentials, "the server has a configuration")

    def _refuse(self, credentials: Credentials | None, why: str) -> None:
        if self._admin_token is None or not self._admin_token:
            raise NotAllowed(
                f"{why}; to change it over HTTP start the server with --admin_token_env "
                "and send that token"
            )
        if credentials is None:
            raise WrongSecret(f"{why}: the admin token is needed (as a Basic password or Bearer)")
        raise WrongSecret(f"{why}: wrong admin token")

    # -- the configuration that is kept in ROOT --------------------------------------------------

    @property
    def _kept_config(self) -> Path:
        return self.root / "config.toml"

    @property
    def _kept_admin_secret(self) -> Path:
        return self.root / "admin_secret.toml"

    def _state_of_kept(self) -> tuple[int, int] | None:
        try:
            stat = self._kept_config.stat()
        except FileNotFoundError:
            return None
        return stat.st_mtime_ns, stat.st_ino

    def _read_kept(self) -> Configuration:
        config = _read_source(self._kept_config)
        if config is None:
            return Configuration(repositories={})
        # What a person or `quickstart` wrote into ROOT is trusted as a file given by --config is;
        # what was submitted was checked by the rules for submissions before it came here.
        return read_configuration(
            config,
            self._given_admin_secret or _read_source(self._kept_admin_secret),
            environ=self.environ,
        )

    def _keep(self, config: str, admin_secret: str | None) -> None:
        # config.toml last: it is what the other processes watch.
        if admin_secret is None:
            self._kept_admin_secret.unlink(missing_ok=True)
        else:
            write_private(self._kept_admin_secret, admin_secret, replace=True)
        write_private(self._kept_config, config, replace=True)
        self._kept = self._state_of_kept()

    def _follow(self) -> None:
        self._looked_at = time.monotonic()
        if self._state_of_kept() == self._kept:
            return
        with self._change_lock:
            kept = self._state_of_kept()
            if kept == self._kept:
                return
            self._kept = kept
            try:
                self._exchange(self._build(self._read_kept()))
            except PrivatePypiError as error:
                logger.error("the changed %s is not used: %s", self._kept_config, error)

    def _exchange(self, built: Repositories) -> None:
        built.start(wait=_FIRST_SYNC)
        old, self._repositories = self._repositories, built
        timer = threading.Timer(_OLD_REQUESTS, old.close)
        timer.daemon = True
        timer.start()

    def _build(self, configuration: Configuration) -> Repositories:
        return Repositories(
            configuration,
            root=self.root,
            tmp=self.tmp,
            expiry=self._expiry,
            extra_index_url=self._extra_index_url,
        )


def _shows(credentials: Credentials | None, token: Secret | None) -> bool:
    return (
        credentials is not None
        and token is not None
        and bool(token)
        and hmac.compare_digest(
            # A variable of the environment may hold what is no UTF-8.
            credentials.secret.reveal().encode("utf-8", "surrogatepass"),
            token.reveal().encode("utf-8", "surrogatepass"),
        )
    )


def _reaches_existing(settings: RepositorySettings) -> bool:
    paths = (getattr(settings.backend, field.name) for field in fields(settings.backend))
    return any(isinstance(path, Path) and path.exists() for path in paths)


def _read_source(path: Path) -> Source | None:
    try:
        return Source(text=path.read_text("utf-8"), name=str(path), folder=path.parent)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error


class _OwnTmp:
    """A temporary folder of this process alone; those of dead processes are removed.

    Several servers may share one ROOT, so nobody may empty the others' folders: a folder whose
    lock is free has lost its process.
    """

    def __init__(self, root: Path) -> None:
        parent = root / "tmp"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for lock_path in parent.glob("*.lock"):
                with contextlib.suppress(Timeout), FileLock(lock_path).acquire(timeout=0):
                    shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
                    lock_path.unlink(missing_ok=True)
            name = f"{os.getpid()}-{secrets.token_hex(4)}"
            # The lock first: a folder without one would never be removed.
            self._lock = FileLock(parent / f"{name}.lock")
            self._lock.acquire()
            self.folder = parent / name
            self.folder.mkdir()
        except OSError as error:
            raise ConfigurationError(f"cannot write below {root}: {error}") from error

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)
