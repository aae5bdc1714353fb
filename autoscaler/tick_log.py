"""What a tick changed: a line in the log and an event per change, and none for a quiet tick."""

from collections.abc import Sequence

import structlog

from autoscaler.chronicle import Chronicle
from autoscaler.core.decision import Decision, Reason, ReasonCode, scales
from autoscaler.core.snapshot import GroupStatus, HostStatus
from autoscaler.core.status import Finished, host_statuses
from autoscaler.core.transition import Transition
from autoscaler.reasons import describe

log = structlog.get_logger(__name__)


class TickLog:
    """Compares each tick with the one before."""

    def __init__(self, chronicle: Chronicle) -> None:
        self._chronicle = chronicle
        self._why: dict[str, str | None] = {}

    def write(self, finished: Finished, before: Sequence[GroupStatus]) -> None:
        """Write what changed; `before` is what the tick before left of the groups."""
        statuses = host_statuses(finished.observation)
        self._hosts(statuses)
        self._chronicle.hosts(finished.observation.at, statuses)
        self._chronicle.figures(finished.observation)
        _transitions(finished.result.transitions)
        known = {status.group: status.decision for status in before}
        for decision in finished.result.decisions:
            self._chronicle.capacity(decision)
            self._chronicle.refresh(decision, finished.result.memory.groups[decision.group].refresh)
            self._decision(decision, known.get(decision.group))

    def _hosts(self, statuses: Sequence[HostStatus]) -> None:
        """Log a host's hypervisor when it goes and when it comes back."""
        for status in statuses:
            before = self._why.get(status.host, "")
            if status.why is not None and before in {None, ""}:
                log.error("host does not answer, its groups are held", host=status.host, why=status.why)
            elif status.why is None and before is not None:
                log.info("host answers", host=status.host)
            self._why[status.host] = status.why

    def _decision(self, decision: Decision, previous: Decision | None) -> None:
        self._images(decision, previous)
        codes = [reason.code.value for reason in decision.reasons]
        if scales(decision, previous.admitted if previous is not None else None):
            self._chronicle.scaled(decision)
            log.info(
                "group scaled",
                group=decision.group,
                before=decision.current,
                admitted=decision.admitted,
                recommended=decision.recommended,
                reasons=codes or [wish.reason.code.value for wish in decision.recommendations],
            )
            return
        if codes != ([reason.code.value for reason in previous.reasons] if previous is not None else []):
            log.info("decision changed", group=decision.group, admitted=decision.admitted, reasons=codes)

    def _images(self, decision: Decision, previous: Decision | None) -> None:
        """Raise the alarm for golden images that were found changed since the tick before, and say when it is over."""
        now, before = _changed_images(decision), {} if previous is None else _changed_images(previous)
        for volume in sorted(now.keys() - before.keys()):
            why = describe(now[volume])
            log.error("golden image changed", group=decision.group, image=volume, why=why)
            self._chronicle.note(decision.at, "image_changed", decision.group, image=volume, why=why)
        for volume in sorted(before.keys() - now.keys()):
            log.info("golden image is what it was, or nothing stands on it", group=decision.group, image=volume)


def _changed_images(decision: Decision) -> dict[str, Reason]:
    return {
        str(reason.parameters["volume"]): reason
        for reason in decision.reasons
        if reason.code is ReasonCode.IMAGE_CHANGED
    }


def _transitions(transitions: Sequence[Transition]) -> None:
    for each in transitions:
        log.info(
            "instance changed",
            group=each.group,
            instance=each.instance,
            before=each.before.value if each.before is not None else None,
            after=each.after.value,
            reason=each.reason.value,
        )
