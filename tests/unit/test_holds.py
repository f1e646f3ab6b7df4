"""Who waits after a failed bundle, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from solver.holds import MAX_HOLD_SECONDS, Holds


def test_a_culprit_waits_twice_as_long_each_time() -> None:
    holds, now, waits = Holds(0.5), 100.0, []
    for count in range(1, 11):
        assert holds.blame("a", now) == count
        wait = next(n for n in range(200) if not holds.is_held("a", now + n))
        waits.append(wait)
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == MAX_HOLD_SECONDS
    holds.clear(["a", "unknown"])
    assert not holds.is_held("a", now)
    assert holds.blame("a", now) == 1


@given(st.integers(1, 200), st.data())
def test_one_culprit_among_many_is_found_in_a_logarithm_of_tries(
    size: int, data: st.DataObject
) -> None:
    names = [str(number) for number in range(size)]
    culprit = data.draw(st.sampled_from(names))
    holds, failures = Holds(0.5), 0
    passed: set[str] = set()
    holds.suspect(names)
    while group := holds.next_group():
        if culprit not in group:
            passed.update(group)
            continue
        failures += 1
        if len(group) > 1:
            holds.suspect(group)
    assert passed == set(names) - {culprit}
    assert failures <= size.bit_length() + 1
    assert holds.suspects == frozenset()
