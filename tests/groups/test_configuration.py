"""What the table of a group may say; every mistake is reported with what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from private_pypi.configuration.config import (
    Configuration,
    ConfigurationText,
    GroupSettings,
    Submitted,
    read_configuration,
)
from private_pypi.errors import ConfigurationError
from private_pypi.web import create_app
from tests.web.conftest import Deploy, basic

TABLES = """
[mine]
type = "file_system"
read_secret = "r"
[theirs]
type = "file_system"
read_secret = "r"
claimed = ["their-*"]
[pypi]
type = "mirror"
[nexus]
type = "mirror"
index_url = "https://nexus.acme.example/simple/"
username = "u"
password = "p"
[github]
type = "github_projects"
owner = "acme"
claimed = ["acme-*"]
[open_names]
type = "github_projects"
owner = "acme"
[oci]
type = "oci"
registry = "ghcr.io"
namespace = "acme"
claimed = ["oci-*"]
[oci_open]
type = "oci"
registry = "ghcr.io"
namespace = "acme"
[pyoci]
type = "oci"
any_registry = true
registries = ["ghcr.io"]
claimed = ["x"]
"""


def read(text: str, admin_secret: str | None = None) -> Configuration:
    return read_configuration(
        ConfigurationText(text=TABLES + text, name="c", folder=None),
        None
        if admin_secret is None
        else ConfigurationText(text=admin_secret, name="s", folder=None),
        environ={},
    )


def problems(text: str, admin_secret: str | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text, admin_secret)
    return list(caught.value.problems)


def group(keys: str, name: str = "all") -> str:
    return f'[{name}]\ntype = "group"\n{keys}\n'


def test_all_keys() -> None:
    text = group(
        'members = ["Inner", "PyPI"]\nmix = ["Torch", "torch_vision"]\npublish_to = "INNER"\n'
        'claimed = ["Acme_*"]\nanonymous_read = true',
        "All",
    ) + group('members = ["mine", "theirs"]\npublish_to = "mine"', "inner")
    groups = read(text).groups
    assert list(groups) == ["inner", "all"]  # each after its members
    assert groups["all"] == GroupSettings(
        name="all",
        members=("inner", "pypi"),
        mix=frozenset({"torch", "torch-vision"}),
        publish_to="inner",
        claimed=("acme-*",),
        anonymous_read=True,
    )


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("", "[all] members: missing; it must be a list of names of other tables, in order"),
        ("members = []", "[all] members: must not be empty; it must be a list of names"),
        ('members = "mine"', "[all] members: must be a list, each text, not 'mine'"),
        ("members = [1]", "[all] members: must be a list, each text, not [1]"),
        ('members = ["minr"]', "[all] members: there is no table 'minr'; did you mean 'mine'?"),
        ('members = ["mine", "MINE"]', "[all] members: 'mine' is there more than once"),
        ('members = ["all"]', "[all] members: a group cannot be a member of itself"),
        (
            'members = ["mine", "open_names"]',
            "[all] members: 'open_names' is of type 'github_projects', which cannot tell a project "
            "that does not exist from one that the caller may not see. So it must say which names "
            "it answers for: give the table [open_names] a key claimed, such as "
            "claimed = ['acme-*']",
        ),
        ('members = ["oci_open"]', "[all] members: 'oci_open' is of type 'oci', which cannot tell"),
        (
            'members = ["pyoci"]',
            "[all] members: 'pyoci' has nothing but tenants, each with secrets of its own, which a "
            "group cannot ask; make a table for the one tenant that is meant",
        ),
        (
            'members = ["github", "nexus"]',
            "[all] members: everybody with an account at the provider of [github] could read the "
            "mirror [nexus] here",
        ),
        ('members = ["mine"]\npublish_to = "pypi"', "[all] publish_to: 'pypi' is not one of the"),
        ('members = ["mine"]\npublish_to = 1', "[all] publish_to: must be text, not 1"),
        (
            'members = ["pypi"]\npublish_to = "pypi"',
            "[all] publish_to: 'pypi' is a mirror, where nothing can be published",
        ),
        ('members = ["mine"]\nmix = "torch"', "[all] mix: must be a list, each text, not 'torch'"),
        (
            'members = ["mine"]\nmix = ["torch*"]',
            "[all] mix: 'torch*' is not the name of a project; patterns cannot be mixed",
        ),
        (
            'members = ["theirs"]\nmix = ["Their_X"]',
            "[all] mix: 'their-x' is claimed by [theirs], which then answers for it alone; take it "
            "out of mix, or out of claimed",
        ),
        (
            'members = ["mine"]\nmix = ["x"]\nclaimed = ["x"]',
            "[all] mix: 'x' is claimed by [all], which then answers for it alone",
        ),
        (
            'members = ["mine"]\nclaimed = ["a b"]',
            "[all] claimed: 'a b' cannot match a project; it must be a project name, or a pattern",
        ),
        ('members = ["mine"]\nanonymous_read = 1', "[all] anonymous_read: must be true or false"),
        ('members = ["mine"]\nmember = 1', "[all] member: unknown key; did you mean 'members'?"),
        (
            'members = ["mine"]\nread_secret = "x"',
            "[all] read_secret: unknown key; it may be: type, members, mix, publish_to, claimed, "
            "anonymous_read",
        ),
        (
            'members = ["mine"]\nextra_index_url = "https://x.example/"',
            "[all] extra_index_url: unknown key",
        ),
    ],
)
def test_mistakes(keys: str, problem: str) -> None:
    (said,) = problems(group(keys))
    assert said.startswith(f"c: {problem}")


def test_circles_are_found() -> None:
    text = (
        group('members = ["b"]', "a")
        + group('members = ["c"]', "b")
        + group('members = ["mine", "a"]', "c")
    )
    (said,) = problems(text)
    assert "the groups are members of each other: " in said
    assert said.count(" → ") == 3


def test_what_is_wrong_in_a_group_inside_is_wrong() -> None:
    inner = group('members = ["theirs", "github"]', "inner")
    assert problems(inner + group('members = ["inner"]\nmix = ["their-x"]')) == [
        "c: [all] mix: 'their-x' is claimed by [theirs], which then answers for it alone; take it "
        "out of mix, or out of claimed"
    ]
    assert problems(inner + group('members = ["inner"]\npublish_to = "inner"')) == [
        "c: [all] publish_to: the group 'inner' has no publish_to itself"
    ]
    (said,) = problems(inner + group('members = ["nexus", "inner"]'))
    assert "provider of [github] could read the mirror [nexus]" in said


def test_all_mistakes_are_reported_together() -> None:
    """A member whose own table is wrong is not called unknown."""
    text = '[broken]\ntype = "file_system"\nread_secrt = "x"\n' + group(
        'members = ["broken", "gone"]'
    )
    assert [said.partition(";")[0] for said in problems(text)] == [
        "c: [broken] read_secrt: unknown key",
        "c: [all] members: there is no table 'gone'",
    ]


@pytest.mark.parametrize(
    "members",
    ['"github", "pypi"', '"oci", "pypi"', '"mine", "nexus"', '"mine", "github", "oci"'],
)
def test_members_that_are_allowed(members: str) -> None:
    assert len(read(group(f"members = [{members}]")).groups) == 1


def test_a_group_has_no_admin_secret() -> None:
    assert problems(group('members = ["mine"]'), '[all]\ntype = "group"\nraw = "x"\n') == [
        "s: [all]: a group has no storage of its own; give its members their secrets"
    ]


def test_a_command_for_one_table_is_told_to_name_a_member() -> None:
    with pytest.raises(ConfigurationError, match="a group has no storage of its own; name one of"):
        read_configuration(
            ConfigurationText(text=TABLES + group('members = ["mine"]'), name="c", folder=None),
            None,
            environ={},
            only="all",
        )


def test_a_group_can_be_submitted(deploy: Deploy) -> None:
    """With the same checks; and what it reaches is what its members may reach."""
    app = create_app(deploy(None, admin_token="operator")).test_client()
    tables = (
        '[mine]\ntype = "file_system"\nread_secret = "reader"\n'
        '[other]\ntype = "file_system"\nread_secret = "other"\n'
    )
    refused = app.post(
        "/initialize/", data={"config": tables + group('members = ["mine", "othr"]')}
    )
    assert refused.status_code == 400
    assert "did you mean 'other'?" in refused.text
    done = app.post("/initialize/", data={"config": tables + group('members = ["mine"]')})
    assert done.status_code == 200, done.text
    for secret, status in (("reader", 200), ("other", 401)):
        assert app.get("/r/all/simple/", headers=basic("all", secret)).status_code == status
    # Replaced by one with another member.
    done = app.post(
        "/initialize/",
        data={"config": tables + group('members = ["other"]')},
        headers=basic("", "operator"),
    )
    assert done.status_code == 200, done.text
    for secret, status in (("reader", 401), ("other", 200)):
        assert app.get("/r/all/simple/", headers=basic("all", secret)).status_code == status


def test_only_groups_is_no_configuration(deploy: Deploy) -> None:
    app = create_app(deploy(None)).test_client()
    refused = app.post("/initialize/", data={"config": group('members = ["mine"]')})
    assert (refused.status_code, "there is no table 'mine'" in refused.text) == (400, True)


def test_a_submitted_mirror_may_not_reach_addresses_that_are_not_allowed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_configuration(
            ConfigurationText(
                text='[m]\ntype = "mirror"\nindex_url = "http://10.0.0.1/simple/"\n'
                + group('members = ["m"]'),
                name="c",
                folder=None,
            ),
            None,
            environ={},
            submitted=Submitted(root=Path("/nowhere")),
        )
    (said,) = caught.value.problems
    assert "may not make the server contact 'http://10.0.0.1/simple/'" in said
