"""What requests for pages and files ask for, and how the last equal ones were answered.

Installers send the same requests again and again. To read such a request and to make its answer
takes longer than to find out whether the answer is still right. So both are kept: what a request
asks for, as its path and headers say, and the answer together with what it was made of.

Nothing that may change is kept. For each request the caller's rights are checked anew, and the
repository is asked anew for what the answer is made of, such as the page in its present state. The
answer is used again only if that is the same as before.
"""

from __future__ import annotations

import functools
import re
from typing import Any, cast

from packaging.utils import NormalizedName

from private_pypi.pages.simple_api import Representation, negotiate
from private_pypi.storage.bounded import BoundedBytes
from private_pypi.web.http.content import LONGEST_KEPT, Conditions, Content
from private_pypi.web.http.credentials import parse_credentials
from private_pypi.web.serving import Answer

# Only with normalized names, because others are redirected (protocol 7).
_PLAIN = re.compile(r"(?:/r/([^/]+))?/simple/(?:([a-z0-9]+(?:-[a-z0-9]+)*)/([^/]*))?")

_negotiate = functools.lru_cache(maxsize=256)(negotiate)

_BYTES = 16 * 2**20
_FIELDS_BYTES = 2**20
_LARGEST = 256 * 1024  # bytes; a larger answer would displace too many others
_OF_ONE = 2000  # bytes; about what one entry takes without content

Key = tuple[Any, ...]
"""Values that can be compared, and be the key of a dictionary."""


class Fields:
    """What the header fields of a GET ask for, whatever its path is."""

    __slots__ = (
        *("accept", "conditions", "credentials", "held", "is_kept", "may_be_browser"),
        "representation",
    )

    def __init__(self, environ: dict[str, Any], key: Key) -> None:
        self.held = sum(len(text) for text in key if isinstance(text, str))
        """How much memory the fields themselves take, in bytes."""
        self.is_kept = False
        """Whether they are kept for requests with another path."""
        self.credentials = parse_credentials(environ.get("HTTP_AUTHORIZATION"))
        self.accept: str | None = environ.get("HTTP_ACCEPT")
        self.conditions = Conditions(
            "GET",
            environ.get("HTTP_ACCEPT_ENCODING"),
            environ.get("HTTP_IF_NONE_MATCH"),
            environ.get("HTTP_IF_RANGE"),
            environ.get("HTTP_RANGE"),
            environ.get("HTTP_IF_MODIFIED_SINCE"),
            is_plain=True,
        )
        """Without how the request has waited, which is not the same for equal requests."""
        self.representation: Representation | None = None
        """What to send of a page; None: nothing fits, or the header is too long to cache."""
        if self.accept is None or len(self.accept) <= LONGEST_KEPT:
            self.representation = _negotiate(self.accept)
        self.may_be_browser = _may_be_browser(environ)
        """Whether the view has to decide whether this is a browser (see `browsers.is_browser`)."""


class Asked:
    """What a GET for the list, a page or a file asks for."""

    __slots__ = ("fields", "filename", "key", "last", "name", "project", "route")

    def __init__(self, match: re.Match[str], fields: Fields, key: Key) -> None:
        """`match` is the path, as `_PLAIN` understands it."""
        self.key = key
        self.fields = fields
        self.name: str | None = match[1]
        """The repository that the path names."""
        self.project = cast("NormalizedName | None", match[2])
        """None: the list of all projects is asked for."""
        self.filename: str | None = match[3]
        """Empty or None: a page is asked for."""
        self.route = "/simple/"
        if self.project is not None:
            self.route += "<name>/<filename>" if self.filename else "<name>/"
        self.last: tuple[Key, Answer] | None = None
        """The last answer, after what it follows from, together with what was asked."""


class AskedBefore:
    """What was asked lately, of limited size; safe for many threads.

    Only requests with an answer are kept, so a secret that nobody accepts is not. The fields of a
    client are kept apart, because it sends the same ones with each path.
    """

    def __init__(self) -> None:
        self._kept: BoundedBytes[Asked] = BoundedBytes(_BYTES)
        self._fields: BoundedBytes[Fields] = BoundedBytes(_FIELDS_BYTES)

    def read(self, environ: dict[str, Any]) -> Asked | None:
        """What a GET without a query asks for; None if it is nothing plain."""
        key = _key(environ)
        asked = self._kept.find(key)
        if asked is not None:
            return asked
        match = _PLAIN.fullmatch(environ["PATH_INFO"])
        if match is None:
            return None
        of_fields = key[1:]
        return Asked(match, self._fields.find(of_fields) or Fields(environ, of_fields), key)

    def keep(self, asked: Asked, made_of: Key | None, content: Content) -> Answer | None:
        """Keep the answer and return it; None if a thread has to send it.

        `made_of` None: the next answer will be another one, so only the fields are kept.
        """
        answer = content.as_answer()
        if answer is None:
            return None
        fields = asked.fields
        named = len(asked.key[0]) + fields.held
        if named > LONGEST_KEPT:
            return answer
        if not fields.is_kept:
            fields.is_kept = True
            self._fields.keep(asked.key[1:], fields, _OF_ONE + fields.held)
        size = _OF_ONE + named + len(answer.body)
        if made_of is not None and size <= _LARGEST:
            asked.last = made_of, answer
            self._kept.keep(asked.key, asked, size)
        return answer


def _key(environ: dict[str, Any]) -> Key:
    """Everything of a request that `Asked` is made of."""
    get = environ.get
    authorization = get("HTTP_AUTHORIZATION")
    return (
        environ["PATH_INFO"],
        authorization,
        get("HTTP_ACCEPT"),
        get("HTTP_ACCEPT_ENCODING"),
        get("HTTP_IF_NONE_MATCH"),
        get("HTTP_IF_RANGE"),
        get("HTTP_RANGE"),
        get("HTTP_IF_MODIFIED_SINCE"),
        not authorization and _may_be_browser(environ),
    )


def _may_be_browser(environ: dict[str, Any]) -> bool:
    return not environ.get("HTTP_AUTHORIZATION") and (
        "HTTP_SEC_FETCH_MODE" in environ
        or environ.get("HTTP_USER_AGENT", "").startswith("Mozilla/")
    )
