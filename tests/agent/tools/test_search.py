"""Lines looked for among lines, compared with the plainest search there is."""

import time

from hypothesis import given
from hypothesis import strategies as st

from agent.tools.search import place_of

FEW = st.sampled_from(["a", "b"])


@given(st.lists(FEW, min_size=1, max_size=6), st.lists(FEW, max_size=20), st.integers(0, 8))
def test_the_first_place_is_found_where_one_is(sought, lines, start):
    places = (at for at in range(start, len(lines) - len(sought) + 1) if lines[at : at + len(sought)] == sought)
    assert place_of(sought, lines, start) == next(places, None)


def test_many_lines_that_are_alike_are_searched_in_time():
    """It was quadratic: 20,000 lines among 80,000 took a quarter of a minute."""
    begun = time.process_time()
    assert place_of([*["same"] * 20_000, "other"], ["same"] * 80_000, 0) is None
    assert place_of(["same", *["other"] * 20_000, "last"], ["same", *["other"] * 80_000], 0) is None
    assert place_of(["same"] * 20_000, [*["same"] * 19_999, "other"] * 4 + ["same"] * 20_000, 0) == 80_000
    assert time.process_time() - begun < 3
