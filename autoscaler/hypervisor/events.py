"""Lifecycle events: they make the next tick come sooner, and decide nothing."""

from collections.abc import Callable

import libvirt


def watch_lifecycle(connection: libvirt.virConnect, on_change: Callable[[], None]) -> None:
    """Call `on_change` from the event loop's thread whenever a domain changes; it must return at once."""

    def changed(
        _connection: libvirt.virConnect, _domain: libvirt.virDomain, _event: int, _detail: int, _opaque: None
    ) -> None:
        on_change()

    connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, changed, None)
