"""Addresses, names and commands for tools."""

from __future__ import annotations

from packaging.utils import canonicalize_name

from private_pypi.web.people.tool_settings import ShownCommand, ToolSettings, install_commands

DEMO = canonicalize_name("demo")


def test_addresses_and_names_for_tools() -> None:
    settings = ToolSettings(
        base="https://acme.example:8443/py", repository="my_repo.x", needs_secret=True
    )
    assert (
        settings.index_url,
        settings.index_url_with_user,
        settings.upload_url,
        settings.host,
        settings.netloc,
        settings.index_name,
        settings.variable,
    ) == (
        "https://acme.example:8443/py/r/my_repo.x/simple/",
        "https://my_repo.x@acme.example:8443/py/r/my_repo.x/simple/",
        "https://acme.example:8443/py/r/my_repo.x/",
        "acme.example",
        "acme.example:8443",
        "my-repo-x",
        "MY_REPO_X",
    )
    assert ToolSettings(base="http://[::1]:80", repository="a", needs_secret=True).host == "::1"


def test_what_everybody_may_read_is_installed_without_a_user() -> None:
    settings = ToolSettings(base="https://acme.example", repository="open", needs_secret=False)
    assert install_commands(settings, DEMO, "1!2.0")[0] == ShownCommand(
        "pip", "pip install --index-url https://acme.example/r/open/simple/ 'demo==1!2.0'"
    )
