"""What a group should be by its load: each strategy gives a recommendation, and they are combined."""

from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.core.decision import Recommendation
from autoscaler.core.policy import Behavior
from autoscaler.core.reading import Reading


@dataclass(frozen=True, slots=True)
class View:
    """What one strategy looks at."""

    reading: Reading
    current: int
    """The count admitted before."""
    behavior: Behavior
    changed_at: float | None = None
    """When the count last changed."""

    @property
    def serving(self) -> int:
        """The instances that are ready and warmed up, of those that are wanted."""
        newest = self.reading.newest
        return min(newest.serving, self.current) if newest is not None else self.current


def combine(recommendations: Sequence[Recommendation], current: int) -> int:
    """Out if any strategy wants it, in only as far as all agree; one that cannot tell blocks scale-in.

    One that abstains has no say.
    """
    wishes = [wish for wish in recommendations if not wish.abstains]
    return max((current if wish.count is None else wish.count for wish in wishes), default=current)
