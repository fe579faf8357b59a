"""Runs `python -m private_pypi`, which is the same as the command `private_pypi`."""

from __future__ import annotations

import sys

from private_pypi.cli import main

if __name__ == "__main__":
    sys.exit(main())
