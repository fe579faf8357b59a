"""Says which members of a group answer for a project, and why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from packaging.utils import NormalizedName

from private_pypi.backend import Secret
from private_pypi.repositories.explaining import Explanation, about_member, mixed
from private_pypi.repositories.group_members import Leaf, Path, secret_for


def answered(
    project: NormalizedName, said: Mapping[Path, Explanation], leaves: Mapping[Path, Leaf]
) -> Explanation:
    """What those who answer say of a project, of whom there is at least one."""
    names = ", ".join(repr("/".join(path)) for path in said)
    first = leaves[next(iter(said))]
    if any(project in step.mix for step in first.steps):
        why = f"the name is in `mix`, so the files are those of all members that have it: {names}"
    elif first.repository.claims(project):
        why = f"the files are those of member {names}, which claims the name"
    else:
        why = f"the files are those of member {names}, the first one that has this project"
    together = mixed(said)
    return replace(together, notes=[why, *together.notes])


def unanswered(
    project: NormalizedName,
    secret: Secret,
    leaves: Collection[Leaf],
    ever_had: Callable[[NormalizedName], bool],
) -> Explanation:
    """What is said of a project for which nobody answers.

    The reasons are only told to those who may read all members. For others, names that are hidden
    from them look as names that do not exist.
    """
    notes = ["no member of this group answers for this project"]
    is_open = not any(
        leaf.repository.rights_per_project or secret_for(leaf.repository, secret) is None
        for leaf in leaves
    )
    if is_open:
        notes += _why_nobody(project, secret, leaves, was_private=ever_had(project))
    return Explanation(project=project, is_found=False, notes=notes)


def _why_nobody(
    project: NormalizedName, secret: Secret, leaves: Collection[Leaf], *, was_private: bool
) -> Iterator[str]:
    for leaf in leaves:
        repository = leaf.repository
        own = secret_for(repository, secret)
        if not leaf.may_answer(project):
            yield about_member(leaf.path, "it is not asked, because this name is claimed")
        elif repository.is_mirror and was_private:
            yield about_member(
                leaf.path, "it is not asked, because this name was that of a private project"
            )
        elif own is not None:
            notes = repository.explain(project, own).notes or ["it has no such project"]
            yield from (about_member(leaf.path, note) for note in notes)
