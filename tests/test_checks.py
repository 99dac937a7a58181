"""`python -m tests`: the second run of the numeric tests and its kernels."""

from __future__ import annotations

import pytest

from tests.__main__ import AVX2, HERE, NUMERIC, capability


def test_the_numeric_tests_are_there() -> None:
    assert all((HERE / path).exists() for path in NUMERIC)


def test_other_kernels_can_be_chosen() -> None:
    if capability() != "AVX512":
        pytest.skip("this CPU has no AVX-512: there is no second run")
    assert capability(AVX2) == "AVX2"
