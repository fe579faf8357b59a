"""The command `explain`: why an installer does not get what it was asked for from an index."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace

import requests
from packaging.version import Version

from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import say
from private_pypi.commands.index_client import IndexClient, connect, require_ok
from private_pypi.distributions.filenames import parse_filename, project_name
from private_pypi.distributions.interpreters import Interpreter, parse_interpreter, parse_wanted
from private_pypi.errors import BackendError, BackendUnavailable, InvalidFilename, cause_of
from private_pypi.pages.explanations import (
    Report,
    ReportedFile,
    groups_of,
    report_from_json,
    report_text,
)

_PAGES = "simple/"  # the end of the address of an index of private_pypi
_ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, "
    "text/html;q=0.1"
)
_LARGEST = 128 << 20  # bytes of an answer


def explain(
    index_url: str,
    project: str,
    version: str | None = None,
    *,
    python: str | None = None,
    platform: str | None = None,
    all: bool = False,  # noqa: A002 - the name of the flag
    environ: Mapping[str, str],
) -> int:
    """Explain which files of a project an index serves, and why not the others.

    It lists the files that the index hides, with the rule and the reason, and the files that do not
    suit a version of Python or a platform. Where there are many, it counts them, and lists the
    newest. An index that is no server of private_pypi does not tell what it hides; then the page of
    the project is read.
    The exit code is 0 if there is a file that an installer can take, and 1 if there is none.
    The user name and the secret are taken from INDEX_URL (https://USER:SECRET@HOST/…), from the
    environment variables PRIVATE_PYPI_USERNAME and PRIVATE_PYPI_PASSWORD, or from the netrc file.

    Args:
        index_url: The address of the index, https://HOST/r/<repository>/simple/.
        project: The name of the project.
        version: A version such as 1.0, or a specifier such as '>=1,<2'. Without it, all versions.
        python: The version of Python, such as 3.11. Without it, all versions suit.
        platform: The platform tag of wheels, such as manylinux_2_28_x86_64, macosx_14_0_arm64 or
            win_amd64. Without it, all platforms suit.
        all: List every file. Without it, the newest files of each rule or reason are listed.

    Example:
        private_pypi explain https://HOST/r/mine/simple/ numpy '>=2' --python 3.11
    """
    name = project_name(project)
    if name is None:
        raise UsageError(f"PROJECT {project!r} is not the name of a project")
    try:
        interpreter = parse_interpreter(python, platform)
        is_wanted = None if version is None else parse_wanted(version)
    except ValueError as error:
        raise UsageError(str(error)) from None
    client = connect(index_url, environ)
    asked = {"python": python, "platform": platform, "version": version}
    asked["all"] = "true" if all else None
    query = {key: text for key, text in asked.items() if text is not None}
    report = _from_server(client, name, query)
    if report is None:
        told = _from_page(client, name, interpreter, is_wanted)
        report = replace(told, python=python, platform=platform, version=version)
    if not all:
        report = report.summary()
    for line in report_text(report, "--all lists every file"):
        say(line)
    return 0 if _is_installable(report) else 1


def _is_installable(report: Report) -> bool:
    """Whether an installer would take one of the files.

    It takes a yanked one only if exactly its version is asked for (PEP 592).
    """
    try:
        is_exact = bool(Version((report.version or "").lstrip(" =")))
    except ValueError:
        is_exact = False
    return any(not group.is_yanked or is_exact for group in report.usable)


def _from_server(client: IndexClient, project: str, query: Mapping[str, str]) -> Report | None:
    """What a server of private_pypi says; None: this is something else, or of an older version."""
    # The address of the repository, without `simple/`, is given by mistake.
    base = client.url.removesuffix(_PAGES) if client.url.endswith(f"/{_PAGES}") else client.url
    url = f"{base}explain/{project}"
    with closing(
        client.request("GET", url, "application/json", params=query, stream=True)
    ) as answer:
        if answer.status_code == requests.codes.unauthorized or answer.status_code >= 500:
            require_ok(answer)
        if answer.status_code != requests.codes.ok:
            return None
        try:
            return report_from_json(json.loads(_content(answer, client.url)))
        except (ValueError, RecursionError):
            return None


def _from_page(
    client: IndexClient,
    project: str,
    interpreter: Interpreter,
    is_wanted: Callable[[str], bool] | None,
) -> Report:
    """What the page of a project says."""
    url = f"{client.url}{project}/"
    with closing(client.request("GET", url, _ACCEPT, follow=True, stream=True)) as answer:
        notes = [
            "this index does not tell what it hides, so only the page of the project is explained"
        ]
        if answer.history:
            notes.append(f"the page is at another address: {answer.url.partition('?')[0]}")
        if answer.status_code in (404, 410):
            notes.append("the index has no such project")
            return Report(repository=client.url, project=project, is_found=False, notes=notes)
        require_ok(answer)
        files = _files_of(answer, project, interpreter)
        found = [
            file
            for file in files
            if is_wanted is None or file.version is None or is_wanted(file.version)
        ]
    return Report(
        repository=client.url,
        project=project,
        is_found=True,
        notes=notes,
        groups=groups_of(found),
    )


def _files_of(
    answer: requests.Response, project: str, interpreter: Interpreter
) -> Iterator[ReportedFile]:
    # Imported here, because other commands do not need it.
    from pypi_simple import ProjectPage
    from pypi_simple.errors import UnsupportedRepoVersionError

    shown = answer.url.partition("?")[0]
    type_ = answer.headers.get("Content-Type", "text/html").partition(";")[0]
    content = _content(answer, shown)
    try:
        if type_.strip().lower().endswith("json"):
            page = ProjectPage.from_json_data(json.loads(content), answer.url)
        elif type_.strip().lower().endswith("html"):
            page = ProjectPage.from_html(project, content, answer.url)
        else:
            raise ValueError(f"its type is {type_!r}")
    except (ValueError, RecursionError, UnsupportedRepoVersionError) as error:
        raise BackendError(f"{shown} is not the page of a project: {error}") from error
    for each in page.packages:
        version: str | None
        objection: str | None
        try:
            version = str(parse_filename(each.filename).version)
        except InvalidFilename as error:
            version, objection = None, str(error)
        else:
            objection = interpreter.objection(each.filename, each.requires_python)
        yield ReportedFile(
            filename=each.filename,
            version=version,
            is_served=True,
            reason=objection,
            suits=objection is None,
            yanked=(each.yanked_reason or "") if each.is_yanked else None,
        )


def _content(answer: requests.Response, url: str) -> bytes:
    content = bytearray()
    try:
        for chunk in answer.iter_content(1 << 16):
            content += chunk
            if len(content) > _LARGEST:
                raise BackendError(f"the answer of {url} is larger than {_LARGEST >> 20} MiB")
    except requests.RequestException as error:
        raise BackendUnavailable(f"the answer of {url} was cut off: {cause_of(error)}") from error
    return bytes(content)
