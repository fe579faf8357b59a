"""Which member of a group answers for a project, for all that members can answer (protocol 77).

The rules are written once more in `expected`, from what is promised to users, and not in the way in
which `repositories.group` applies them: it looks at all members at once, as a flat sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from private_pypi.backend import Access
from private_pypi.errors import (
    BackendError,
    FileNotFound,
    NotAllowed,
    Unsupported,
    WrongSecret,
)
from private_pypi.model import Upload
from private_pypi.repositories import Found
from private_pypi.repositories.group import Group
from private_pypi.testing.contract.helpers import make_upload
from tests.groups.doubles import NAME, SECRET, Member, Several, State, make

# -- the rules, from the words -----------------------------------------------------------


@dataclass(frozen=True)
class At:
    """A member that is no group, and the groups around it with its place in each."""

    name: str
    member: Member
    around: tuple[tuple[Several, int], ...]


def flat(several: Several, name: str = "all", around: tuple = ()) -> Iterator[At]:  # type: ignore[type-arg]
    for number, member in enumerate(several.members):
        inside = (*around, (several, number))
        if isinstance(member, Several):
            yield from flat(member, f"{name}.{number}", inside)
        else:
            yield At(f"{name}.{number}", member, inside)


def has_claim(member: Member | Several) -> bool:
    if isinstance(member, Member):
        return member.claims and member.kind != "mirror"
    return member.claims or any(map(has_claim, member.members))


def are_mixed(one: At, other: At) -> bool:
    """Whether the group in which the ways to both part mixes the name."""
    for (group, mine), (_, its) in zip(one.around, other.around, strict=False):
        if mine != its:
            return group.mixes
    raise AssertionError("they are the same")


def may_answer(at: At) -> bool:
    """Claimed names are answered by those who claim them, and never by a mirror."""
    for group, number in at.around:
        claiming = [has_claim(member) for member in group.members]
        if any(claiming) and not claiming[number]:
            return False
        if group.claims and at.member.kind == "mirror":
            return False
    return at.member.kind != "cannot tell" or at.member.claims


def said_by(at: At, everybody: list[At]) -> str:
    """What one of them says: "yes", "no", "hidden" or "trouble"."""
    member = at.member
    if member.kind == "mirror":
        others = [
            other.member.state
            for other in everybody
            if other.member.kind != "mirror" and not are_mixed(at, other)
        ]
        if {"has", "had"} & set(others):
            return "no"  # once private, never from a mirror
        if "trouble" in others:
            return "trouble"  # it might have been private
        return {"has": "yes", "trouble": "trouble"}.get(member.state, "no")
    if member.rights == "trouble":
        return "trouble"
    if member.rights.startswith("refuses"):
        if member.claims:
            return "hidden"
        return {"trouble": "trouble", "never": "no"}.get(member.state, "hidden")
    if member.state == "has":
        return "yes"
    if member.state == "trouble":
        return "trouble"
    return "hidden" if member.kind == "cannot tell" else "no"


def expected(several: Several) -> list[str] | str:
    """The names of the members that answer; [] if the project is absent; "trouble"."""
    everybody = list(flat(several))
    answering: list[At] = []
    for at in filter(may_answer, everybody):
        if any(not are_mixed(at, other) for other in answering):
            continue  # one before it answers, for the whole project
        match said_by(at, everybody):
            case "yes":
                answering.append(at)
            case "hidden":
                return []
            case "trouble":
                return "trouble"
    return [at.name for at in answering]


# -- what a group does ---------------------------------------------------------------------------


def answered(group: Group) -> list[str] | str:
    """The same for a group, in the same form; the members say in their files who they are."""
    try:
        found = group.find(NAME, SECRET)
    except BackendError:
        return "trouble"
    if not isinstance(found, Found):
        return []
    return [file.location for file in found.files()]


members = st.builds(
    Member,
    kind=st.sampled_from(["private", "private", "cannot tell", "mirror"]),
    state=st.sampled_from(["has", "had", "never", "trouble", "never"]),
    rights=st.sampled_from(
        [
            *("accepts", "accepts", "accepts", "public", "trouble"),
            *("refuses", "refuses with a reason", "refuses late"),
        ]
    ),
    claims=st.sampled_from([False, False, False, True]),
)


def several(inner: st.SearchStrategy[Member | Several]) -> st.SearchStrategy[Several]:
    return st.builds(
        Several,
        members=st.lists(inner, min_size=1, max_size=4).map(tuple),
        claims=st.sampled_from([False, False, False, True]),
        mixes=st.sampled_from([False, False, True]),
    )


def is_allowed(group: Several) -> bool:
    """What the configuration checks: nothing that is claimed is mixed, at any depth."""
    return not (group.mixes and has_claim(group)) and all(
        is_allowed(member) for member in group.members if isinstance(member, Several)
    )


groups = several(
    st.one_of(members, members, members, several(st.one_of(members, several(members))))
)
groups = groups.filter(is_allowed)

HAS, HAD, NEVER = Member(state="has"), Member(state="had"), Member()
PUBLIC = Member(kind="mirror", state="has")


@settings(max_examples=500)
@given(groups)
# A private member is behind another group, or the mirror is.
@example(Several((HAD, Several((NEVER, PUBLIC)))))
@example(Several((Several((NEVER, PUBLIC)), HAS)))
# A refusal in a group counts for the group around it.
@example(Several((Several((Member(state="has", rights="refuses"), NEVER)), HAS)))
@example(
    Several(
        (Several((Member(kind="cannot tell", claims=True),)), Member("private", "has", claims=True))
    )
)
# A member in trouble does not matter behind the one that answers.
@example(Several((HAS, Member(state="trouble"))))
@example(Several((Several((HAS, PUBLIC)), Member(state="trouble"))))
def test_the_answer_is_that_of_the_rules(described: Several) -> None:
    group = make(described)
    wanted = expected(described)
    assert answered(group) == wanted
    for at in flat(described):
        filename = f"{NAME}-1.0-{at.name}.tar.gz"
        try:
            got: object = group.file(NAME, filename, SECRET).location
        except FileNotFound:
            got = None
        except BackendError:
            got = "trouble"
        served = wanted if isinstance(wanted, list) else []
        assert got == ("trouble" if wanted == "trouble" else at.name if at.name in served else None)


@settings(max_examples=500)
@given(groups)
@example(Several((HAD, Several((NEVER, PUBLIC)))))
@example(Several((PUBLIC, Member(state="had", rights="refuses"))))
@example(Several((HAS, Member(state="had", rights="refuses")), mixes=True))
def test_lists_searches_and_feeds_have_what_is_answered(described: Several) -> None:
    """Where they are not in trouble: they ask all members, so that any trouble is theirs."""
    group = make(described)
    wanted = expected(described)
    try:
        listed = group.list_projects(SECRET).names()
    except BackendError:
        assert any("trouble" in (at.member.state, at.member.rights) for at in flat(described))
        return
    except WrongSecret:
        assert any(at.member.rights == "refuses late" for at in flat(described))
        return
    if wanted == "trouble":
        wanted = []
    assert listed == ([NAME] if wanted else [])
    total, lines = group.search([NAME], SECRET, limit=10, offset=0)
    assert (total, [(line.name, line.summary) for line in lines]) == (
        len(listed),
        [(NAME, wanted[0])] if wanted else [],
    )
    feed = [line.summary for line in group.newest_releases(10, SECRET)]
    mirrors = {at.name for at in flat(described) if at.member.kind == "mirror"}
    assert sorted(map(str, feed)) == sorted(set(wanted) - mirrors)


@given(groups)
def test_a_group_lets_in_whom_a_private_member_lets_in(described: Several) -> None:
    """Mirrors decide only where there is nothing else."""
    group = make(described)
    leaves = [at.member for at in flat(described)]
    private = [member for member in leaves if member.kind != "mirror"] or leaves
    rights = {member.rights for member in private}
    try:
        access: object = group.access(SECRET, Access.READ)
    except BackendError:
        access = "trouble"
    except NotAllowed:
        access = "refused with a reason"
    if rights & {"accepts", "refuses late"}:
        assert access == Access.READ
    elif "trouble" in rights:
        assert access == "trouble"
    elif "refuses with a reason" in rights:
        assert access == "refused with a reason"
    else:
        assert access == Access.NONE


# -- publishing ----------------------------------------------------------------------------------

publishing = groups.flatmap(
    lambda described: st.tuples(
        st.just(described),
        st.sampled_from([at.name for at in flat(described) if at.member.kind != "mirror"] or [""]),
    )
)


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Upload:
    folder = tmp_path_factory.mktemp("upload")
    return make_upload(folder, f"{NAME}-2.0.tar.gz", b"content")


@settings(max_examples=300)
@given(publishing)
@example((Several((Member("cannot tell", claims=True), Member(claims=True))), "all.1"))
def test_what_is_published_would_be_seen(upload: Upload, case: tuple[Several, str]) -> None:
    """By a caller whom all members let in; else the upload is refused with a sentence."""
    described, target = case
    group = make(described, publish_to=target or None)
    try:
        group.publish(upload, SECRET)
    except Unsupported:
        assert not target
        return
    except NotAllowed as error:
        assert f"project {NAME!r}" in str(error)
        return
    except BackendError:
        assert "trouble" in [at.member.state for at in flat(described)]
        return
    (at,) = [at for at in flat(described) if at.name == target]
    after = replaced(described, at.around)
    assert target in expected(after)


def replaced(several: Several, way: tuple) -> Several:  # type: ignore[type-arg]
    """The same without refusals and trouble, and with the project in the member at the end."""
    (_, number), *deeper = way

    def changed(place: int, member: Member | Several) -> Member | Several:
        if isinstance(member, Several):
            inner = tuple(deeper) if place == number and deeper else ((None, -1),)
            return replaced(member, inner)
        state: State = "has" if place == number else member.state
        state = "never" if state == "trouble" else state
        return replace(member, rights="accepts", state=state)

    return replace(several, members=tuple(changed(*each) for each in enumerate(several.members)))
