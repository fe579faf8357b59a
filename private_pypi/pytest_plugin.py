"""A pytest plugin that shows the values in assertions of `private_pypi.testing.contract`."""

import pytest

pytest.register_assert_rewrite("private_pypi.testing.contract")
