"""The command `static_site.check`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from private_pypi.backend import system_errors
from private_pypi.backend.public_index import public_index_url
from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import one_secret, say
from private_pypi.commands.indexing import Progress
from private_pypi.distributions.records import printable
from private_pypi.errors import BackendError
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making.check_report import Report, as_markdown, as_text
from private_pypi_static_site.making.http_client import HttpClient
from private_pypi_static_site.making.linked_files import HostToken, check_links
from private_pypi_static_site.making.public_index import (
    Comparison,
    PublicIndex,
    compare,
    read_verdicts,
    write_verdicts,
)
from private_pypi_static_site.making.site_checks import check_site


def check(
    *,
    folder: str = ".",
    public_index: str | None = None,
    strict: bool = False,
    links: bool = False,
    token: str | None = None,
    token_env: str | None = None,
    token_host: str = "github.com",  # noqa: S107 - a host
    summary: str | None = None,
    environ: Mapping[str, str],
) -> int:
    """Check a site: its files, and its names against the public index.

    The exit code is 1 if a file is missing or wrong, if a name is taken on the public index, or if
    the public index could not be asked. A name that is free there is a note.
    What was found about names is kept in the site, for its pages.

    Args:
        folder: The folder of the site.
        public_index: The address of the public index, to which names are compared.
        strict: A name that is free on the public index is an error too.
        links: Also ask for each linked file whether it is there.
        token: A token for linked files. Other users of this machine can see it, so prefer
            --token_env.
        token_env: The name of the environment variable that contains the token.
        token_host: The host that gets the token. It is sent nowhere else.
        summary: A file to which the result is added as Markdown, such as $GITHUB_STEP_SUMMARY.

    Example:
        private_pypi static_site.check --folder site --links
    """
    if not folder:  # perhaps an unset variable; the current folder is not meant
        raise UsageError("--folder is empty; give the path of a site")
    site = SiteFolder(Path(folder).absolute())
    secret = one_secret("token", raw=token, env=token_env, environ=environ)
    if secret is not None and not links:
        raise UsageError("--token is only used with --links")
    progress = Progress()
    try:
        with closing(HttpClient()) as client:
            checked = check_site(site, progress)
            address = public_index or checked.settings.public_index or public_index_url()
            index = PublicIndex(address, client)
            wanted = checked.settings.check_public_index
            earlier = read_verdicts(site, index.url)
            found, unreached = Comparison(), None
            if wanted:
                try:
                    found = compare(index, checked.projects, progress=progress)
                except BackendError as error:
                    unreached = str(error)
            if links:
                host_token = HostToken(token_host, secret) if secret is not None else None
                checked.problems += check_links(
                    checked.projects, client, host_token, progress=progress
                )
    finally:
        progress.end()
    # Without an answer of today, the earlier verdict stays, with its date. Those of projects that
    # are gone go, but not those of projects whose files are broken at the moment.
    present = {each.normalized for each in checked.projects} | checked.broken
    verdicts = {**earlier, **found.verdicts} if wanted else {}
    report = Report(
        public_index=index.url,
        projects=len(checked.projects),
        verdicts={name: each for name, each in verdicts.items() if name in present},
        troubles=found.troubles,
        problems=checked.problems,
        unreached=unreached,
        compared=wanted,
        strict=strict,
    )
    if found.verdicts:
        with site.changing():
            write_verdicts(site, index.url, report.verdicts)
    for line in as_text(report):
        say(line)
    if summary is not None:
        with (
            system_errors(f"cannot write {summary!r}"),
            Path(summary).open("a", encoding="utf-8") as file,
        ):
            file.write(printable(as_markdown(report)))
    return 1 if report.failed else 0
