"""A receiver that is sent the whole list of whom to serve, whenever that changed and once a minute."""

import json
from collections.abc import Callable

from autoscaler.core.observation import SlotState, TrafficView
from autoscaler.core.policy import Traffic
from autoscaler.core.traffic import Wanted
from autoscaler.external.haproxy import BalancerError
from autoscaler.external.http import ExchangeError, exchange
from autoscaler.external.served_files import FULL_WEIGHT, acknowledged

SECONDS = 5.0
REPEAT_SECONDS = 60.0


def body(wanted: Wanted) -> bytes:
    """Render what is sent: everybody with address, state (ready, drain) and weight; who is not there is gone."""
    instances = [
        {
            "instance": service.instance,
            "host": service.host,
            "address": service.address,
            "port": service.port,
            "state": service.state.value,
            "weight": max(1, round(FULL_WEIGHT * service.weight_share)) if service.state is SlotState.READY else 0,
        }
        for service in sorted(wanted.services, key=lambda service: service.instance)
    ]
    return json.dumps({"group": wanted.group, "instances": instances}, separators=(",", ":")).encode()


class ServedWebhook:
    """Posts the list until it is taken with a status of 200 to 299."""

    def __init__(self, traffic: Traffic, now: Callable[[], float]) -> None:
        self._url = traffic.url
        self._now = now
        self._put: Wanted | None = None
        self._sent = b""
        self._sent_at = 0.0

    def view(self, wanted_at: float | None) -> TrafficView:
        """Give what was taken last."""
        return acknowledged(self._put, wanted_at, self._now())

    def put(self, wanted: Wanted) -> None:
        """Send the list if it differs from the last one, or that is a minute old."""
        content, now = body(wanted), self._now()
        if content != self._sent or abs(now - self._sent_at) >= REPEAT_SECONDS:
            self._send(content)
            self._sent, self._sent_at = content, now
        self._put = wanted

    def _send(self, content: bytes) -> None:
        try:
            headers = {"Content-Type": "application/json"}
            status = exchange("POST", self._url, seconds=SECONDS, body=content, headers=headers)
        except ExchangeError as error:
            raise BalancerError(f"the receiver of traffic.url was not told whom to serve: {error}") from error
        if not 200 <= status < 300:
            raise BalancerError(f"the receiver of traffic.url answered with status {status}")
