"""A real HAProxy: one frontend, one backend whose slots wait for instances, and the socket of its runtime API."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from autoscaler.core.observation import TrafficView
from autoscaler.core.policy import Traffic, TrafficKind
from autoscaler.external.haproxy import BalancerError, HAProxy
from tests.support.private_libvirtd import wait_until

CONFIGURATION = """\
global
    stats socket {socket} mode 666 level admin
    nbthread 1
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
frontend front
    bind {listen}:{port}
    default_backend web
backend web
    {options}
    default-server weight 100 {check}
    server-template web {slots} 127.0.0.1:1 disabled
    server foreign 127.0.0.1:9 disabled
"""


class HAProxyProcess:
    """Start, kill and start again; `inside` is put before its command, to run it in a network namespace."""

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        slots: int = 4,
        check: str = "check inter 500ms fall 2 rise 1",
        options: str = "",
        listen: str = "127.0.0.1",
        inside: Sequence[str] = (),
    ) -> None:
        # The names of unix sockets are short.
        self._home = tempfile.TemporaryDirectory(prefix="haproxy-")
        self.socket = Path(self._home.name) / "admin.sock"
        self.port = port
        self.listen = listen
        self.configuration = directory / "haproxy.cfg"
        self._log = directory / "haproxy.log"
        self._inside = list(inside)
        self._check = check
        self._options = options
        self.configure(slots)
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, slots: int) -> None:
        """Write its configuration, to be read at the next start."""
        self.configuration.write_text(
            CONFIGURATION.format(
                socket=self.socket,
                port=self.port,
                listen=self.listen,
                slots=slots,
                check=self._check,
                options=self._options,
            )
        )

    def traffic(self) -> Traffic:
        """Give what a policy says of it."""
        return Traffic(TrafficKind.HAPROXY, socket=str(self.socket), backend="web", slots="web")

    def section(self, **changes: object) -> dict[str, object]:
        """Give the section of a policy file that names it."""
        return {"type": "haproxy", "socket": str(self.socket), "backend": "web", "slots": "web", **changes}

    def start(self) -> "HAProxyProcess":
        """Start it and wait until its socket answers."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._inside, "haproxy", "-f", str(self.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, 20, f"haproxy answers; it said: {self._log}")
        return self

    def kill(self) -> None:
        """End it at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.socket.unlink(missing_ok=True)

    def view(self) -> TrafficView:
        """Read its slots."""
        return self.client().view(None)

    def client(self) -> HAProxy:
        """Give a client of its runtime API."""
        return HAProxy(self.traffic(), lambda: 0.0)

    def close(self) -> None:
        """End it and remove its socket."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._home.cleanup()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self._log.read_text()
        try:
            self.view()
        except BalancerError:
            return False
        return True
