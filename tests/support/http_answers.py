"""An HTTP server in this process that answers as it is told and keeps what it was asked."""

import ssl
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

Answer = Callable[[BaseHTTPRequestHandler], None]


class Answers:
    """Serves while the context is open; `body`, `status` and `headers` are given to whoever asks."""

    def __init__(self, certificate: "Certificate | None" = None) -> None:
        self.body = b""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.answer: Answer = self._answer
        self.asked: list[tuple[str, dict[str, str], dict[str, list[str]]]] = []
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                answers.asked.append((self.path, dict(self.headers), parse_qs(form)))
                answers.answer(self)

            def do_GET(self) -> None:
                answers.asked.append((self.path, dict(self.headers), {}))
                answers.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server declares it
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.certificate, certificate.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(self.status)
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(self.body)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Certificate:
    """A self-signed certificate of 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        self.certificate = directory / "certificate.pem"
        self.key = directory / "key.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-keyout", str(self.key), "-out", str(self.certificate), "-days", "2"),
                *("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"),
            ],
            check=True,
            capture_output=True,
        )
