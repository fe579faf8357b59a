"""Which files of a mirror are let through: pure rules, and the files in which operators write them.

A *cooldown* hides files that are young, *as_of* hides those that came later than an instant,
*denials* hide projects and versions, and *wheels_only* hides source distributions. An *allowance*
is an exception to the cooldown. `docs/policy.md` describes all of this for operators.
"""

from __future__ import annotations

from private_pypi.policy.allowances import FILENAME, Allowance, AllowanceFile
from private_pypi.policy.judging import HiddenFile, Judged, Policy, Sighting, make_policy

__all__ = [
    "FILENAME",
    "Allowance",
    "AllowanceFile",
    "HiddenFile",
    "Judged",
    "Policy",
    "Sighting",
    "make_policy",
]
