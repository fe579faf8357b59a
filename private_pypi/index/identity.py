"""What a local index is a copy of, as values and as the text that is written into its file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Identity:
    """What a local index is a copy of: a type of storage, and the settings that matter for it.

    As text it has one line for the type and one for each setting that is not at its default. In a
    text that is read, a missing setting is at its default, and an unknown one is ignored. So a
    version that adds a setting goes on to use the index that is there.
    """

    kind: str
    settings: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    naming: Collection[str] = ()
    """The settings that say which storage it is; the others say how it is seen."""

    @property
    def text(self) -> str:
        """The text for the file."""
        lines = [
            f"{name}={value}"
            for name, value in self.settings.items()
            if value != self.defaults.get(name)
        ]
        return "\n".join([self.kind, *lines])

    def is_same(self, text: str) -> bool:
        """Whether a text describes this very index."""
        return self._agrees(text, self.settings)

    def is_same_storage(self, text: str) -> bool:
        """Whether a text describes the same storage, perhaps seen with other settings."""
        return self._agrees(text, self.naming)

    def _agrees(self, text: str, names: Collection[str]) -> bool:
        kind, *lines = text.split("\n")
        found = dict(line.partition("=")[::2] for line in lines)
        return kind == self.kind and all(
            found.get(name, self.defaults.get(name)) == self.settings[name] for name in names
        )
