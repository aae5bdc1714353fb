"""A look at one host's running instances by somebody who may only read."""

import time

import libvirt

from autoscaler.core.observation import DomainCounters, DomainState, Ownership
from autoscaler.hypervisor import counters
from autoscaler.hypervisor.calls import Calls
from autoscaler.hypervisor.connection import Connections
from autoscaler.hypervisor.inventory import list_domains

_READ_SECONDS = 10.0
_OFF = frozenset({DomainState.SHUTOFF, DomainState.CRASHED, DomainState.UNDEFINED})
_GROUPS = counters.groups_of(frozenset({"guest.cpu", "guest.memory", "guest.disk", "guest.net"}))


class Onlooker:
    """Asks one host over read-only connections, which libvirt lends to every user of the machine."""

    def __init__(self, host: str, uri: str) -> None:
        self._connections = Connections(host, uri, Calls(host), read_only=True)

    def close(self) -> None:
        """Let the connections go."""
        self._connections.close()

    def running(self) -> tuple[tuple[str, Ownership, DomainCounters | None], ...]:
        """Give the UUID, owner and counters of every instance that is not off, of whichever controller.

        Counters are None for one that is paused. Raises HypervisorError.
        """

        def read(connection: libvirt.virConnect) -> tuple[tuple[str, Ownership, DomainCounters | None], ...]:
            owners = {
                domain.uuid: domain.ownership
                for domain in list_domains(connection, self._connections.host)
                if domain.ownership is not None and domain.state not in _OFF
            }
            stats = dict(counters.read(connection, _GROUPS)) if owners else {}
            at = time.monotonic()
            return tuple(
                (uuid, owner, counters.counters(uuid, stats[uuid], at) if uuid in stats else None)
                for uuid, owner in owners.items()
            )

        return self._connections.call("tell what its instances take", read, _READ_SECONDS)
