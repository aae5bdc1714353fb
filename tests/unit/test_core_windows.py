import pytest

from autoscaler.core.memory import Wish
from autoscaler.core.windows import is_full, trim, weights


def wishes(*times: float) -> list[Wish]:
    return [Wish(at, int(at)) for at in times]


@pytest.mark.parametrize(
    ("times", "at", "window", "full"),
    [
        ([], 100, 60, False),
        ([100], 100, 60, False),
        ([40, 50, 60, 70, 80, 90, 100], 100, 60, True),
        ([41, 50, 60, 70, 80, 90, 100], 100, 60, False),
        ([30, 50, 70, 90, 100], 100, 60, True),  # each gap is two intervals
        ([30, 50, 71, 90, 100], 100, 60, False),
        ([40, 50, 60, 70, 80], 100, 60, True),  # the newest is two intervals old
        ([40, 50, 60, 70, 79], 100, 60, False),
        ([100], 100, 0, True),
        ([10, 40, 50, 60, 70, 80, 90, 100], 100, 60, True),  # an old gap before the window is forgotten
    ],
)
def test_is_full(times: list[float], at: float, window: float, full: bool) -> None:
    assert is_full(wishes(*times), at, window, 10.0) is full


def test_trim_keeps_one_from_before_the_window() -> None:
    assert [wish.at for wish in trim(wishes(10, 20, 30, 40, 50), 50, 15)] == [30, 40, 50]


def test_weights_are_the_time_each_sample_speaks_for() -> None:
    assert [(wish.at, weight) for wish, weight in weights(wishes(38, 48, 50, 60, 100), 100, 60, 10.0)] == [
        (48, 8),
        (50, 2),
        (60, 10),
        (100, 20),  # forty seconds of silence count as two intervals
    ]
    assert weights(wishes(10), 100, 60, 10.0) == []
