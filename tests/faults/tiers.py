"""Which cases of a test run in ``make test``; the others are for ``make faults``."""

import pytest


def tiered(cases, *quick):
    """Return cases for ``parametrize``, those that are not ``quick`` marked for the full tier."""
    assert set(quick) <= set(cases)
    return [case if case in quick else pytest.param(case, marks=pytest.mark.full) for case in cases]
