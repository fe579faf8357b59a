"""The legacy JSON API, and the answer to XML-RPC, which the public index offers beside it.

The addresses of files in these answers begin with `/packages/`, because bandersnatch mirrors no
others. They give the same files as the addresses of the simple API, to the same callers.
"""

from __future__ import annotations

import xmlrpc.client
from urllib.parse import quote

from flask import Response

from private_pypi.backend import Access
from private_pypi.distributions.filenames import normalize
from private_pypi.model import ListedFile
from private_pypi.pages.legacy_json import project_json
from private_pypi.pages.releases import current_release
from private_pypi.repositories import Grant
from private_pypi.web.api.simple import (
    conditions_of_request,
    send,
    wait_without_thread,
)
from private_pypi.web.api.simple_content import looked_for_file
from private_pypi.web.http.content import page_content
from private_pypi.web.http.page_cache import Page, PageKey, make_page
from private_pypi.web.http.routes import Route
from private_pypi.web.releases import core_metadata_of, find_release, find_releases
from private_pypi.web.requests import grant, page_cache, redirect_within, server_address

_NO_XML_RPC = -32601  # "method not found" in the usual numbering of XML-RPC faults


def json_of_project(
    name: str, version: str | None = None, repository: str | None = None
) -> Response:
    """A project with all of its releases, or one release of it."""
    granted = grant(repository, Access.READ)
    normalized = normalize(name)
    if name != normalized:
        if version is None:
            return redirect_within("..", normalized, "json")
        return redirect_within("..", "..", normalized, version, "json")
    wait_without_thread(granted, normalized)
    releases, found = find_releases(granted, normalized)
    shown = (
        current_release(releases)
        if version is None
        else find_release(releases, normalized, version)
    )
    root = server_address()

    def render() -> Page:
        text = project_json(
            normalized,
            releases,
            shown,
            core_metadata_of(granted, shown),
            serial=found.serial,
            page_url=f"{root}/r/{_quoted(granted)}/project/{normalized}/",
            file_url=lambda file: _file_url(root, granted, file),
            with_releases=version is None,
        )
        return make_page(text, "application/json", found.serial)

    kind = "legacy JSON" if version is None else f"legacy JSON {shown.version}"
    # A group has the project from a member, whose own addresses are others.
    key = PageKey(found.kept_in, normalized, found.serial, kind, f"{root}/r/{granted.name}")
    pages = page_cache()
    return send(
        page_content(
            pages.get(key, render),
            conditions_of_request(),
            public=granted.is_public,
            freshness=found.freshness,
            text_of=pages.text,
        )
    )


def file_below_packages(repository: str, name: str, filename: str) -> Response:
    """A file under the address that these answers give."""
    granted = grant(repository, Access.READ)
    project = normalize(name)
    wait_without_thread(granted, project)
    return send(looked_for_file(granted, project, filename, conditions_of_request()))


def no_xml_rpc(repository: str | None = None) -> Response:
    """Tell `pip search` and old versions of bandersnatch what to do instead of XML-RPC.

    Both show the text of a fault to their user, and do not show any other answer.
    """
    fault = xmlrpc.client.Fault(
        _NO_XML_RPC,
        "this index has no XML-RPC. To search, open it in a browser: "
        f"{server_address()}/ ; to mirror it with bandersnatch, set `api-method = simple`.",
    )
    text = xmlrpc.client.dumps(fault, methodresponse=True)
    return Response(text, content_type="text/xml", headers={"Cache-Control": "no-store"})


ROUTES = (
    Route("/pypi/<name>/json", json_of_project),
    Route("/pypi/<name>/json/", json_of_project),
    Route("/pypi/<name>/<version>/json", json_of_project),
    Route("/pypi/<name>/<version>/json/", json_of_project),
    Route("/pypi", no_xml_rpc, ("POST",)),
    Route("/pypi/", no_xml_rpc, ("POST",)),
    Route("/RPC2", no_xml_rpc, ("POST",)),
)
SERVER_ROUTES = (Route("/packages/<repository>/<name>/<filename>", file_below_packages),)


def _file_url(root: str, granted: Grant, file: ListedFile) -> str:
    name = quote(file.filename, safe="")
    return f"{root}/packages/{_quoted(granted)}/{file.project}/{name}"


def _quoted(granted: Grant) -> str:
    return quote(granted.name, safe="")
