"""Checks requests and answers against GitHub's OpenAPI description.

What the description leaves out, and GitHub does all the same, is in `UNDESCRIBED`, with sources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fastjsonschema

FOLDER = Path(__file__).resolve().parent.parent / "descriptions"

# Statuses that an operation may answer although the description does not list them; `*` is any
# operation. Their bodies are checked as basic-error or validation-error.
UNDESCRIBED: Mapping[str, frozenset[int]] = {
    # 304: REST documentation, "Best practices", "Use conditional requests if appropriate".
    # 401: "Authenticating to the REST API", "Failed login limit".
    # 403, 429: "Rate limits for the REST API", "Exceeding the rate limit", and "Troubleshooting",
    #   "Resource not accessible". 404: "Troubleshooting", "404 Not Found for an existing resource".
    # 422: "Troubleshooting", "Validation Failed". 500, 502, 503: "Troubleshooting", "Timeouts".
    # 301, 307: "Best practices", "Follow redirects".
    "*": frozenset({301, 304, 307, 400, 401, 403, 404, 422, 429, 500, 502, 503}),
    # "Git Repository is empty.": "Git database", note at its start.
    "GET /repos/{owner}/{repo}/git/ref/{ref}": frozenset({409}),
}

# `starter`: "Upload a release asset": "If an upload fails […] an empty asset with a state of
# starter" is left. The description's own enumeration does not have it.
_ASSET_STATES = ["uploaded", "open", "starter"]

_FORMATS = ("uri", "date-time")


class NotAsDescribed(Exception):
    """A request or an answer that GitHub's description does not allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path of the description, as a request has filled it in."""

    method: str
    template: str
    parameters: Mapping[str, str]  # of the path, decoded

    @property
    def name(self) -> str:
        """METHOD /template."""
        return f"{self.method} {self.template}"


class Description:
    """The OpenAPI description, ready to find and check."""

    def __init__(self, path: Path = FOLDER / "github-openapi.json") -> None:
        self._document = json.loads(path.read_text("utf-8"))
        schemas = self._document["components"]["schemas"]
        schemas["release-asset"]["properties"]["state"]["enum"] = _ASSET_STATES
        self._definitions = {name: _json_schema(schema) for name, schema in schemas.items()}
        self._validators: dict[str, Any] = {}

    @cached_property
    def _routes(self) -> list[tuple[re.Pattern[str], str]]:
        routes = []
        for template in sorted(self._document["paths"], key=_precedence):
            item = self._document["paths"][template]
            wide = {
                parameter["name"]
                for operation in item.values()
                for parameter in map(self._follow, operation.get("parameters", ()))
                if parameter.get("x-multi-segment")
            }
            pattern = re.sub(
                r"\\{(\w+)\\}",
                lambda found: f"(?P<{found[1]}>{'.+' if found[1] in wide else '[^/]+'})",  # noqa: B023
                re.escape(template),
            )
            routes.append((re.compile(pattern), template))
        return routes

    def find(self, method: str, path: str) -> Operation | None:
        """The operation for a path (still percent-encoded); None when nothing is described."""
        method = "GET" if method == "HEAD" else method
        for pattern, template in self._routes:
            found = pattern.fullmatch(path)
            if found and method.lower() in self._document["paths"][template]:
                values = {name: unquote(value) for name, value in found.groupdict().items()}
                return Operation(method=method, template=template, parameters=values)
        # The contents of the top folder: a path parameter that is empty.
        if path.endswith("/contents") and method == "GET":
            return self.find(method, f"{path}/")
        found = re.fullmatch(r"/repos/(?P<owner>[^/]+)/(?P<repo>[^/]+)/contents/", path)
        if found and method == "GET":
            values = {name: unquote(value) for name, value in found.groupdict().items()}
            template = "/repos/{owner}/{repo}/contents/{path}"
            return Operation(method=method, template=template, parameters={**values, "path": ""})
        return None

    def check_request(self, operation: Operation, query: Mapping[str, str], body: object) -> None:
        """Raise NotAsDescribed unless parameters and JSON body (None: none) are described so."""
        described = self._operation(operation)
        parameters = [self._follow(p) for p in described.get("parameters", ())]
        names = {p["name"] for p in parameters if p["in"] == "query"}
        for name in query:
            if name not in names:
                raise NotAsDescribed(f"{operation.name}: no query parameter {name!r}")
        for parameter in parameters:
            name, where = parameter["name"], parameter["in"]
            values = operation.parameters if where == "path" else query
            if name not in values:
                if parameter.get("required"):
                    raise NotAsDescribed(f"{operation.name}: {where} parameter {name!r} missing")
                continue
            if parameter["schema"].get("type") == "integer" and not values[name].isdigit():
                raise NotAsDescribed(f"{operation.name}: {name!r} is no integer: {values[name]!r}")
        content = described.get("requestBody", {}).get("content", {})
        if "application/json" in content and body is not None:
            key = f"request {operation.name}"
            self._check(key, content["application/json"]["schema"], body)
        elif described.get("requestBody", {}).get("required") and body is None:
            raise NotAsDescribed(f"{operation.name}: no body")
        elif body is not None and "application/octet-stream" not in content:
            raise NotAsDescribed(f"{operation.name}: takes no body")

    def check_answer(self, operation: Operation, status: int, body: object) -> None:
        """Raise NotAsDescribed unless the operation answers so (body None: none)."""
        responses = self._operation(operation)["responses"]
        if str(status) not in responses:
            extra = UNDESCRIBED["*"] | UNDESCRIBED.get(operation.name, frozenset())
            if status not in extra:
                raise NotAsDescribed(f"{operation.name}: no status {status}")
            if body is not None:
                name = "validation-error" if status == 422 else "basic-error"
                self._check(name, {"$ref": f"#/components/schemas/{name}"}, body)
            return
        response = self._follow(responses[str(status)])
        content = response.get("content", {}).get("application/json")
        if content is not None:
            self._check(f"{status} {operation.name}", content["schema"], body)
        elif body is not None and status < 400:
            raise NotAsDescribed(f"{operation.name}: {status} has no body")

    def check_schema(self, name: str, value: object) -> None:
        """Raise NotAsDescribed unless the value is a `components/schemas/<name>`."""
        self._check(name, {"$ref": f"#/components/schemas/{name}"}, value)

    def _operation(self, operation: Operation) -> dict[str, Any]:
        found: dict[str, Any] = self._document["paths"][operation.template][
            operation.method.lower()
        ]
        return found

    def _follow(self, value: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in value:
            found: Any = self._document
            for part in value["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            value = found
        return value

    def _check(self, key: str, schema: dict[str, Any], value: object) -> None:
        if key not in self._validators:
            converted = _json_schema(schema)
            self._validators[key] = fastjsonschema.compile(
                {**converted, "definitions": self._definitions},
                formats={"uri": _is_uri, "date-time": _is_time},
                use_default=False,
            )
        try:
            self._validators[key](value)
        except fastjsonschema.JsonSchemaValueException as error:
            raise NotAsDescribed(f"{key}: {error.message}") from error


def _precedence(template: str) -> tuple[tuple[bool, str], ...]:
    # A literal segment wins over a parameter: /releases/latest over /releases/{release_id}.
    return tuple((part.startswith("{"), part) for part in template.split("/"))


def _json_schema(schema: Any) -> Any:
    # OpenAPI 3.0 says `nullable` where JSON Schema says `null`, and knows formats of its own.
    if isinstance(schema, list):
        return [_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": schema["$ref"].replace("#/components/schemas/", "#/definitions/")}
    dropped = ("nullable", "discriminator", "default", "title")
    # Many alternatives of GitHub's `oneOf` allow the same value (two kinds of errors, both without
    # a required field): what is meant is `anyOf`.
    result = {
        "anyOf" if key == "oneOf" else key: {
            name: _json_schema(item) for name, item in value.items()
        }
        if key == "properties"
        else _json_schema(value)
        for key, value in schema.items()
        if key not in dropped and not key.startswith("x-")
    }
    if result.get("format") not in _FORMATS:
        result.pop("format", None)
    if schema.get("nullable"):
        return {"anyOf": [{"type": "null"}, result]}
    return result


def _is_uri(value: str) -> bool:
    parts = urlsplit(value)
    return bool(parts.scheme and (parts.netloc or parts.path))


def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
