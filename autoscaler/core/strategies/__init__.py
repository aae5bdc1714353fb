"""What a group should be by its load: each strategy gives a recommendation, and they are combined."""

from collections.abc import Sequence

from autoscaler.core.decision import Recommendation


def combine(recommendations: Sequence[Recommendation], current: int) -> int:
    """Out if any strategy wants it, in only as far as all agree; one that cannot tell blocks scale-in."""
    return max(current if wish.count is None else wish.count for wish in recommendations)
