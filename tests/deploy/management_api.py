"""A management API of ours, with the invocations beside it, over real HTTP.

True about what moto's is not: 410 for a connection that is gone, 413 past the limit, 429 while it
is throttled; statuses and error names from botocore's models (apigatewaymanagementapi 2018-11-29,
lambda 2015-03-31), the limit from apigateway-execution-service-websocket-limits-table.html.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

NAMES = {410: "GoneException", 413: "PayloadTooLargeException", 429: "LimitExceededException"}


class _Paths(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(self.path)
        if path.endswith("/invocations"):
            assert self.headers["X-Amz-Invocation-Type"] == "Event"
            status = self.server.invoked(json.loads(data))
        else:
            stage, _, connection = path.partition("/@connections/")
            status = self.server.pushed(connection, data)
        self.send_response(status)
        if status in NAMES:
            self.send_header("x-amzn-ErrorType", NAMES[status])
        body = b'{"message": null}' if status >= 400 else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class ManagementApi(ThreadingHTTPServer):
    """`connections` has what each one was sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Paths)
        self.connections = {"c1": []}
        self.limit = 128 * 1024
        self.throttled = 0  # so many messages are refused
        self.leaves_after = None  # so many messages, and the client is gone
        self.jobs, self.refuses_jobs = [], False
        self.refused = []
        self.run = None  # what an invocation does
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, args=[0.02], daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/prod"

    def pushed(self, connection, data):
        with self.changed:
            status = self._status(connection, data)
            if status == 200:
                self.connections[connection].append(json.loads(data))
                self.changed.notify_all()
            else:
                self.refused.append(status)
            return status

    def _status(self, connection, data):
        if connection not in self.connections:
            return 410
        if len(self.connections[connection]) == self.leaves_after:
            del self.connections[connection]
            return 410
        if len(data) > self.limit:
            return 413
        if self.throttled:
            self.throttled -= 1
            return 429
        return 200

    def invoked(self, payload):
        if self.refuses_jobs:
            return 429
        self.jobs.append(payload)
        if self.run is not None:
            threading.Thread(target=self.run, args=[payload], daemon=True).start()
        return 202

    def said(self, connection="c1", seconds=60):
        """All messages of a connection, when the last one has come."""
        said = self.connections[connection]
        with self.changed:
            assert self.changed.wait_for(
                lambda: said and said[-1]["type"] in ("end", "error"), seconds
            )
            return list(said)

    def stop(self):
        self.shutdown()
        self.server_close()


def text_of(said):
    """What a page shows: it keeps to one run, in order, and begins again where it is told to."""
    assert [message["seq"] for message in said] == list(range(len(said)))
    assert len({message["run"] for message in said}) == 1
    text = ""
    for message in said:
        text = "" if message["type"] == "restart" else text + message.get("text", "")
    return text
