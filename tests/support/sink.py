"""A receiver of webhooks in a process of its own: `python sink.py FILE` prints its port, then notes what it is told."""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        signature = self.headers["X-Autoscaler-Signature"]
        with Path(sys.argv[1]).open("a") as file:
            file.write(json.dumps({"body": body, "signature": signature}) + "\n")
        self.send_response(204)
        self.end_headers()


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
