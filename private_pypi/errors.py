"""Every failure that private_pypi knows; statuses of HTTP are given to them in `web` alone.

    PrivatePypiError
    ├── ConfigurationError            what an operator wrote is wrong; all mistakes at once
    │   └── AlreadyConfigured         `POST /initialize/` on a server that has a configuration
    ├── NotConfigured                 something is missing before this repository can be served
    ├── AccessError
    │   ├── WrongSecret               unknown repository or wrong secret: indistinguishable
    │   └── NotAllowed                the secret is right, but may not do this
    ├── NotFound                      a *known* absence, never trouble
    │   ├── ProjectNotFound
    │   └── FileNotFound
    ├── InvalidUpload                 the form or the file is not what an index can take
    │   ├── InvalidFilename           no filename of a distribution file
    │   ├── FilenameBurnt             the name was deleted once and stays burnt
    │   └── TooLarge                  a file or a form over its limit
    ├── FileAlreadyExists             other bytes are published under this name
    ├── InvalidIndex                  `index.toml` cannot be read
    ├── StaleIndex                    compare-and-swap lost: somebody wrote the index first
    ├── Unsupported                   this backend cannot do that
    └── BackendError                  the storage is in trouble; never an absence
        ├── BackendUnavailable        try again later: down, slow, limited, not yet synchronised
        └── StorageFull               no space left for what was sent

An error keeps its facts as attributes and composes its sentence in one place.
No message ever holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence


def cause_of(error: BaseException) -> str:
    """What the system says at the bottom of an error, such as `Connection refused`.

    The errors of HTTP libraries quote whole requests, with addresses that may be secret; what the
    system says holds none. The error's type where the system says nothing.
    """
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return type(error).__name__


class PrivatePypiError(Exception):
    """The root of the tree; `str(error)` is a sentence for the person who has to act on it."""


class ConfigurationError(PrivatePypiError):
    """What an operator wrote is wrong.

    `problems` has one sentence for each mistake, each naming table and key.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: Sequence[str] = problems


class AlreadyConfigured(ConfigurationError):
    """A configuration was submitted to a server that does not take one."""


class NotConfigured(PrivatePypiError):
    """Something that only the operator can add is missing before the repository can be served."""


class AccessError(PrivatePypiError):
    """The caller may not do this."""


class WrongSecret(AccessError):
    """Unknown repository, wrong secret or none: the caller is not told which."""

    def __init__(self, message: str = "unknown repository or wrong secret") -> None:
        super().__init__(message)


class NotAllowed(AccessError):
    """The secret is known and does not reach far enough."""


class NotFound(PrivatePypiError):
    """A known absence."""


class ProjectNotFound(NotFound):
    """The index is whole, and this project is not in it."""

    def __init__(self, project: str, hint: str = "") -> None:
        super().__init__(f"no project {project!r} in this repository" + (hint and f": {hint}"))
        self.project = project


class FileNotFound(NotFound):
    """The index or the storage is whole, and this file is not in it."""

    def __init__(self, filename: str) -> None:
        super().__init__(f"no file {filename!r} in this repository")
        self.filename = filename


class InvalidUpload(PrivatePypiError):
    """The form or the file is not what an index can take; sending it again will not help."""


class InvalidFilename(InvalidUpload):
    """The name is not that of a wheel or a source distribution."""

    def __init__(self, filename: str, why: str) -> None:
        super().__init__(f"invalid distribution filename {filename!r}: {why}")
        self.filename = filename


class FilenameBurnt(InvalidUpload):
    """The name belonged to a file that was deleted; it is never used again."""

    def __init__(self, filename: str) -> None:
        super().__init__(
            f"filename {filename!r} was previously used by a file that has since been deleted; "
            "use a different version"
        )
        self.filename = filename


class TooLarge(InvalidUpload):
    """A file or a form is over its limit (bytes, or parts)."""


class FileAlreadyExists(PrivatePypiError):
    """Other bytes are published under this name."""

    def __init__(self, filename: str) -> None:
        # twine, poetry, pdm and maturin look for "already exists" (protocol 56).
        super().__init__(
            f"File already exists ({filename!r} with other content); use a different version"
        )
        self.filename = filename


class InvalidIndex(PrivatePypiError):
    """The index document is damaged or of an unknown form."""


class StaleIndex(PrivatePypiError):
    """The document was written by somebody else since it was read; read it again."""


class Unsupported(PrivatePypiError):
    """The backend cannot do what was asked."""


class BackendError(PrivatePypiError):
    """The storage answered something that it should not; it is unknown what holds now."""


class BackendUnavailable(BackendError):
    """The storage cannot answer now.

    `retry_after`: whole seconds after which asking again makes sense.
    """

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StorageFull(BackendError):
    """There is no space left for what was sent."""
