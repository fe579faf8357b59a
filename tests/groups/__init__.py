"""Tests of groups: several repositories behind one address."""
