"""What the harness collects: short ids, and the tests that leave the second run of the numeric ones."""

from __future__ import annotations

import pytest

from tests.__main__ import HERE, NO_KERNELS
from tests.conftest import LONGEST_ID

MOST = 600  # characters of an id: those of six parameters


def test_ids_are_short(request: pytest.FixtureRequest) -> None:
    """Each process of pytest-xdist sends all ids to the first, which sends that of a test with each of its reports."""
    longest = max((item.nodeid for item in request.session.items), key=len)
    assert len(longest) <= MOST, f"{longest[:MOST]}…: give its parameters ids"


@pytest.mark.parametrize("text", ["x" * 100_000, b"\xff" * 100_000, "x" * 100_001])
def test_a_long_parameter_has_a_short_id(text: str | bytes, request: pytest.FixtureRequest) -> None:
    assert str(len(text)) in request.node.name and len(request.node.nodeid) < 4 * LONGEST_ID


@pytest.mark.parametrize("place", NO_KERNELS)
def test_what_leaves_the_second_run_exists(place: str) -> None:
    file, _, name = place.partition("::")
    assert f"def {name}(" in (HERE / file).read_text() if name else (HERE / file).exists()
