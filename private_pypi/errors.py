"""All errors that private_pypi raises on purpose. Their HTTP statuses are chosen in `web`.

    PrivatePypiError
    ├── ConfigurationError            the operator's configuration is wrong; lists all mistakes
    │   └── AlreadyConfigured         `POST /initialize/` on a server that has a configuration
    ├── NotConfigured                 something is missing before this repository can be served
    ├── AccessError
    │   ├── WrongSecret               unknown repository or wrong secret; the caller cannot tell
    │   └── NotAllowed                the secret is valid, but does not allow this
    ├── NotFound                      something is known not to exist
    │   ├── ProjectNotFound
    │   └── FileNotFound
    │       └── FileHidden            a mirror has this file, and one of its rules hides it
    ├── InvalidUpload                 the form or the file of an upload cannot be accepted
    │   ├── InvalidFilename           not the filename of a distribution file
    │   ├── FilenameBurnt             a file of this name, in any spelling, was deleted earlier
    │   └── TooLarge                  a file or a form is larger than its limit
    ├── FileAlreadyExists             a file with this name and other content is published already
    ├── InvalidIndex                  `index.toml` cannot be read
    ├── StaleIndex                    the index was changed by somebody else since it was read
    ├── Unsupported                   this backend cannot do what was asked
    └── BackendError                  the storage failed; says nothing about what it contains
        ├── BackendUnavailable        try again later: down, slow, limited, not yet synchronised
        ├── LoopDetected              a mirror is asked by itself, so it has no answer
        └── StorageFull               no space left for what was sent

The difference between `NotFound` and `BackendError` is important: when a project is known not to
exist, clients are sent to another index, where a stranger may own its name. A storage that fails
must therefore never look like one in which the project is missing.

An error keeps its facts as attributes and builds its message itself. No message contains a secret.
"""

from __future__ import annotations

from collections.abc import Sequence


def cause_of(error: BaseException) -> str:
    """The operating system's message for the innermost cause, such as `Connection refused`.

    The errors of HTTP libraries quote whole requests, whose addresses may contain secrets. The
    messages of the operating system do not. If there is none, the type of the error is returned.
    """
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return type(error).__name__


class PrivatePypiError(Exception):
    """The base class. `str(error)` is a sentence for the person who has to act on it."""


def fresh(error: PrivatePypiError) -> PrivatePypiError:
    """A copy of the error without its traceback.

    Use it to remember an error, or to raise one error in several threads. A traceback refers to all
    local variables of the calls it goes through, so they could not be freed.
    """
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    return copy


class ConfigurationError(PrivatePypiError):
    """A configuration, or a flag of a command, is wrong.

    `problems` has one sentence for each mistake. Each names the table and the key.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: Sequence[str] = problems


class AlreadyConfigured(ConfigurationError):
    """A configuration was submitted to a server that already has one."""


class NotConfigured(PrivatePypiError):
    """The repository cannot be served until the operator adds something, such as a secret."""


class AccessError(PrivatePypiError):
    """The caller is not allowed to do this."""


class WrongSecret(AccessError):
    """The repository is unknown, or the secret is wrong. The caller is not told which."""

    def __init__(self, message: str = "unknown repository or wrong secret") -> None:
        super().__init__(message)


class NotAllowed(AccessError):
    """The secret is valid, but does not allow this."""


class NotFound(PrivatePypiError):
    """Something is known not to exist."""


class ProjectNotFound(NotFound):
    """The repository does not have this project."""

    def __init__(self, project: str, hint: str = "") -> None:
        super().__init__(f"no project {project!r} in this repository" + (hint and f": {hint}"))
        self.project = project


class FileNotFound(NotFound):
    """The repository does not have this file."""

    def __init__(self, filename: str) -> None:
        super().__init__(f"no file {filename!r} in this repository")
        self.filename = filename


class FileHidden(FileNotFound):
    """The upstream of a mirror has this file, and a rule of the mirror hides it."""

    def __init__(self, filename: str, rule: str, reason: str) -> None:
        super().__init__(filename)
        self.args = (f"file {filename!r} is not served by this mirror ({rule}): {reason}",)
        self.rule = rule


class InvalidUpload(PrivatePypiError):
    """The form or the file of an upload cannot be accepted. Sending it again will not help."""


class InvalidFilename(InvalidUpload):
    """The name is not that of a wheel or a source distribution."""

    def __init__(self, filename: str, why: str) -> None:
        super().__init__(f"invalid distribution filename {filename!r}: {why}")
        self.filename = filename


class FilenameBurnt(InvalidUpload):
    """A file of this name was deleted, and the name has not been released again."""

    def __init__(self, filename: str, *, deleted: str | None = None) -> None:
        """`deleted` is the name of the deleted file, if it was spelled differently."""
        as_other = _in_other_spelling(filename, deleted)
        super().__init__(
            f"filename {filename!r} was previously used{as_other} by a file that has since been "
            "deleted; use a different version, or ask the operator of this index to run "
            "`private_pypi restore_name`"
        )
        self.filename = filename


class TooLarge(InvalidUpload):
    """A file or a form is larger than its limit, in bytes or in parts."""


class FileAlreadyExists(PrivatePypiError):
    """A file with this name and other content is published already."""

    def __init__(self, filename: str, *, published: str | None = None) -> None:
        """`published` is the name of the published file, if it is spelled differently."""
        as_other = _in_other_spelling(filename, published)
        # twine, poetry, pdm and maturin look for "already exists".
        super().__init__(
            f"File already exists ({filename!r} is published{as_other} with other content); "
            "use a different version"
        )
        self.filename = filename


def _in_other_spelling(filename: str, known: str | None) -> str:
    if known in (None, filename):
        return ""
    return f" as {known!r}, which is the same file to installers,"


class InvalidIndex(PrivatePypiError):
    """The index document is damaged, or its format is unknown."""


class StaleIndex(PrivatePypiError):
    """The index document was changed by somebody else since it was read. Read it again."""


class Unsupported(PrivatePypiError):
    """The backend cannot do what was asked."""


class BackendError(PrivatePypiError):
    """The storage failed. It is unknown what it contains now."""


class BackendUnavailable(BackendError):
    """The storage cannot answer now.

    `retry_after` is the number of seconds after which it makes sense to ask again.
    """

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LoopDetected(BackendError):
    """A mirror is asked by itself, directly or through other servers, so it has no answer."""


class StorageFull(BackendError):
    """There is no space left for what was sent."""
