"""What `static_site.check` found out about names, as the pages show it.

To be replaced by `public_index.read_verdicts`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from private_pypi.errors import ConfigurationError

FILE: Final = ".private_pypi-verdicts.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the public index has under the name of a project."""

    kind: str  # "free", "ours", "taken" or "higher"
    public_version: str | None
    our_version: str | None
    checked_at: datetime  # UTC

    @property
    def is_danger(self) -> bool:
        """Whether an installer that asks both indexes may install a stranger's project."""
        return self.kind not in ("free", "ours")


def read_verdicts(folder: Path) -> Mapping[str, Verdict]:
    """The verdicts by normalised name; none, if there has been no check."""
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Verdict(
                kind=str(each["kind"]),
                public_version=each.get("public_version"),
                our_version=each.get("our_version"),
                checked_at=datetime.fromisoformat(each["checked_at"]),
            )
            for name, each in values.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path}: {error}; remove it, and run the check again") from error
