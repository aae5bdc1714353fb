"""What a refresh replaces: whose place another golden image takes, who may go now, and what new ones are made of.

Everything is counted anew at each tick, so that scaling by load, failures and operators' hands need no rules of their
own. Of a group of `admitted` instances, so many as the phase of the refresh has it are to stand on its target; of the
others as many stay as are needed beside them, and the rest is replaced.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoscaler.core.decision import Reason, ReasonCode, because
from autoscaler.core.instances import Instance
from autoscaler.core.memory import GroupMemory, RefreshPhase, RefreshState
from autoscaler.core.policy import Image, Policy
from autoscaler.core.transition import InstanceState

NOT_YET_GONE = frozenset(
    {InstanceState.DRAINING, InstanceState.STOPPING, InstanceState.FAILED, InstanceState.UNHEALTHY}
)
"""Where an instance is on its way out, or may be."""
_GOING = frozenset({InstanceState.DRAINING, InstanceState.STOPPING, InstanceState.FAILED})


def running(group: GroupMemory) -> RefreshState | None:
    """Give the refresh that is under way."""
    return group.refresh if group.refresh is not None and group.refresh.running else None


def stands_on(image: Image, instance: Instance) -> bool:
    """Whether an instance stands on an image, as far as anybody can tell."""
    return image.same_as(instance.image)


def in_service(instance: Instance, group: GroupMemory) -> bool:
    """Whether an instance is ready, is to stay, and gets requests where somebody sends them."""
    known = group.instances.get(instance.id)
    return instance.state is InstanceState.READY and instance.live and known is not None and known.served


def is_refused(instance: Instance, group: GroupMemory) -> bool:
    """Whether an instance stands on the image that a rollback takes out of service."""
    refresh = running(group)
    return refresh is not None and refresh.refused is not None and stands_on(refresh.refused, instance)


def goal(policy: Policy, refresh: RefreshState, admitted: int, live: Sequence[Instance]) -> int:
    """Give how many instances are to stand on the target now; what is protected stays where it is."""
    kept = sum(i.protected and not stands_on(refresh.target, i) for i in live)
    wanted = policy.refresh.canary if refresh.phase is RefreshPhase.CANARY else refresh.goal
    return min(wanted, max(0, admitted - kept))


def to_be_replaced(policy: Policy, admitted: int, live: Sequence[Instance], group: GroupMemory) -> tuple[Instance, ...]:
    """Choose what leaves when what replaces it is there.

    Of several it is what serves nobody, then what is neither on the target nor on what was in service before, then the
    oldest.
    """
    refresh = running(group)
    if refresh is None:
        return ()
    others = [i for i in live if not stands_on(refresh.target, i)]
    there = len(live) - len(others)
    stay = max(0, admitted - max(there, 0 if refresh.held else goal(policy, refresh, admitted, live)))
    free = [i for i in others if i.live and not i.protected and i.in_flight is None]

    def urgency(instance: Instance) -> tuple[bool, bool, float, str]:
        unproven = refresh.previous is not None and not stands_on(refresh.previous, instance)
        return instance.state is InstanceState.READY, not unproven, instance.created_at, instance.id

    return tuple(sorted(free, key=urgency)[: max(0, len(others) - stay)])


def least_in_service(policy: Policy, admitted: int) -> int:
    """Give how many of a group a refresh leaves in service."""
    return min(admitted, max(policy.refresh.min_in_service.of(admitted), policy.min_in_service))


def leave_now(
    policy: Policy,
    admitted: int,
    replaced: Sequence[Instance],
    wanted: tuple[int, int | None],
    group: tuple[Sequence[Instance], GroupMemory],
) -> tuple[list[Instance], tuple[Reason, ...]]:
    """Choose who of `replaced` goes now: whose replacement serves, or who makes room for it where there is none.

    `wanted` is how many are to be cloned, and how many of these fit; `group` is all instances and what is remembered.
    A canary that is being watched replaces nobody yet.
    """
    instances, memory = group
    refresh = running(memory)
    if refresh is None or refresh.held or not replaced:
        return [], ()
    served = [i for i in instances if in_service(i, memory)]
    trusted = sum(not (refresh.unproven and stands_on(refresh.target, i)) for i in served)
    least = least_in_service(policy, admitted)
    spare = max(0, trusted - admitted)
    short = _short(policy, wanted, instances, memory)
    ready_ones = max(spare, min(short, max(0, trusted - least)))
    chosen: list[Instance] = []
    for instance in replaced:
        ready = instance.state is InstanceState.READY
        if len(chosen) < max(spare, short) and (not ready or ready_ones > 0):
            chosen.append(instance)
            ready_ones -= ready
    if chosen or not short:
        return chosen, ()
    if trusted >= admitted:
        return [], (because(ReasonCode.REFRESH_LACKS_ROOM, ready=trusted, min=least, max=policy.size.max),)
    return [], (because(ReasonCode.REFRESH_WAITS_FOR_SERVICE, ready=trusted, min=least),)


def _short(policy: Policy, wanted: tuple[int, int | None], instances: Sequence[Instance], memory: GroupMemory) -> int:
    """Give how many places have to be made for what is to be cloned; none for what will not come."""
    owned = sum(i.owned for i in instances)
    going = sum(i.state in _GOING for i in instances)
    lacking, fitting = wanted
    room = max(0, policy.size.max - owned)
    room = room if fitting is None else min(room, fitting)
    left = max(0, policy.launch.per_hour(policy.size) - len(memory.launched))
    if memory.tripped_at is not None or any(i.state is InstanceState.RETURNING for i in instances):
        return 0
    if memory.failures:
        # One launch at a time is tried: nobody makes room for more than that.
        left = min(left, 1)
    return max(0, min(lacking, left) - room - going)


def launch_images(
    policy: Policy, admitted: int, lacking: int, group: tuple[Sequence[Instance], GroupMemory]
) -> tuple[Image, ...]:
    """Give what each of the next `lacking` instances is made of: service first, canaries last."""
    instances, memory = group
    refresh, image = memory.refresh, launch_image(policy, memory)
    if refresh is None or not (refresh.running and refresh.unproven):
        return (image,) * lacking
    live = [i for i in instances if i.live]
    made = sum(stands_on(refresh.target, i) for i in live)
    canaries = 0 if refresh.held else min(lacking, max(0, goal(policy, refresh, admitted, live) - made))
    return (image,) * (lacking - canaries) + (refresh.target,) * canaries


def launch_image(policy: Policy, group: GroupMemory) -> Image:
    """Give what instances are made of that the group lacks: the policy's image, unless a refresh says otherwise."""
    refresh = group.refresh
    if refresh is None:
        return policy.image
    if refresh.running:
        return refresh.previous or refresh.target if refresh.unproven else refresh.target
    return pinned_image(policy, group) or policy.image


def images_beside(groups: Iterable[GroupMemory]) -> frozenset[Image]:
    """Name the images that refreshes clone from, or may go back to, whatever the policies name."""
    refreshes = [group.refresh for group in groups if group.refresh is not None]
    using = [each for each in refreshes if each.running or each.refused is not None]
    return frozenset(image for each in using for image in (each.target, each.previous) if image is not None)


def pinned_image(policy: Policy, group: GroupMemory) -> Image | None:
    """Give what instances are made of in place of an image that proved bad; None where that is not so."""
    refresh = group.refresh
    if refresh is None or refresh.running or refresh.refused is None or not refresh.refused.same_as(policy.image):
        return None
    return refresh.target if refresh.back else refresh.previous


@dataclass(frozen=True, slots=True)
class Refreshing:
    """A group as a refresh sees it."""

    policy: Policy
    memory: GroupMemory
    instances: tuple[Instance, ...]
    at: float

    @property
    def live(self) -> tuple[Instance, ...]:
        """Give those that serve or will."""
        return tuple(i for i in self.instances if i.live)

    @property
    def admitted(self) -> int:
        """Give the size the group was granted last."""
        return len(self.live) if self.memory.admitted is None else self.memory.admitted

    def others(self, refresh: RefreshState) -> tuple[Instance, ...]:
        """Give those that are to be replaced sooner or later, on their way or not."""
        states = [i for i in self.instances if i.live or (i.state in NOT_YET_GONE and i.reachable)]
        return tuple(i for i in states if not stands_on(refresh.target, i) and not i.protected)

    def new(self, refresh: RefreshState) -> int:
        """Count those that stand on the target."""
        return sum(stands_on(refresh.target, i) for i in self.live)

    def ready(self, refresh: RefreshState) -> int:
        """Count those of them that are in service."""
        return sum(stands_on(refresh.target, i) and in_service(i, self.memory) for i in self.live)

    def goal(self, refresh: RefreshState) -> int:
        """Give how many are to stand on the target by now."""
        return goal(self.policy, refresh, self.admitted, self.live)
