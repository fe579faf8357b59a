"""Which storage the local index of a repository is a copy of."""

from __future__ import annotations

from dataclasses import MISSING, fields

from private_pypi.backend import RemoteSettings
from private_pypi.configuration.config import RepositorySettings
from private_pypi.index.identity import Identity


def identity_of(settings: RepositorySettings) -> Identity:
    """What the local index is a copy of: the type and the settings of the backend.

    Without secrets and without the settings that all remote storages have, such as limits. The
    settings in `names_storage` say which storage it is, the others how it is seen.
    """
    others = {field.name for field in fields(RemoteSettings)}  # `name` and `max_file_bytes`, too
    own = [
        field
        for field in fields(settings.backend)
        if field.init and field.name not in others and "Secret" not in str(field.type)
    ]
    naming = type(settings.backend).names_storage
    return Identity(
        kind=settings.type,
        settings={field.name: _line(getattr(settings.backend, field.name)) for field in own},
        defaults={
            field.name: _line(
                field.default if field.default_factory is MISSING else field.default_factory()
            )
            for field in own
        },
        naming=[field.name for field in own if naming is None or field.name in naming],
    )


def _line(value: object) -> str:
    """A setting as one line of an identity."""
    return str(value).replace("\n", "\\n")
