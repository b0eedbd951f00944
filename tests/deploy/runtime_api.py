"""A Lambda of ours: the Runtime API over real HTTP, and a process that it freezes and kills.

It keeps every chunk apart and hands it out when it comes, with the trailers behind it: AWS's own
emulator shows only the whole. Paths, headers and trailers as docs.aws.amazon.com/lambda/latest/dg
has them: runtimes-api.html and runtimes-custom.html.
"""

import base64
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
PATIENCE = 30
"""Seconds after which a test has failed."""

TRAILERS = {"lambda-runtime-function-error-type", "lambda-runtime-function-error-body"}


class Invoked:
    """One invocation: what was asked, and what came back so far."""

    def __init__(self, id, event, seconds):
        self.id, self.event = id, event
        self.seconds = seconds
        self.deadline = None  # begins when the runtime takes the event
        self.headers, self.trailers = {}, {}
        self.error = None
        self.whole = False  # the last chunk came
        self.timed_out = False
        self._chunks = queue.Queue()
        self.over = threading.Event()

    def piece(self):
        """The next chunk, as soon as it is there; b"" at the end."""
        return self._chunks.get(timeout=PATIENCE)

    def pieces(self):
        return list(iter(self.piece, b""))

    def body(self):
        """What a caller of InvokeWithResponseStream gets."""
        return b"".join(self.pieces())

    def http(self):
        """What a function URL or a REST API makes of it: status, headers, cookies, body."""
        whole = self.body()
        prelude, found, body = whole.partition(bytes(8))
        assert found, f"no 8 NUL bytes: {whole}, {self.error}"
        assert len(prelude) < 16 * 1024
        said = json.loads(prelude)
        return said["statusCode"], said["headers"], said["cookies"], body

    def failure(self):
        """The error in the trailers."""
        assert self.over.wait(PATIENCE)
        told = json.loads(base64.b64decode(self.trailers["lambda-runtime-function-error-body"]))
        assert self.trailers["lambda-runtime-function-error-type"] == told["errorType"]
        return told

    def end(self):
        self._chunks.put(b"")
        self.over.set()


class _Paths(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        assert self.path == "/2018-06-01/runtime/invocation/next", self.path
        self.server.freeze()
        invoked = self.server.waiting.get()
        self.server.process.send_signal(signal.SIGCONT)
        if invoked is None:
            self.close_connection = True
            return
        self.server.took(invoked)
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", invoked.id)
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int(invoked.deadline * 1000)))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:x:0:function:f")
        self.send_header("Lambda-Runtime-Trace-Id", f"Root={invoked.id}")
        self._event(json.dumps(invoked.event).encode())

    def _event(self, event):
        if len(event) < 2048:
            self.send_header("Content-Length", str(len(event)))
            self.end_headers()
            self.wfile.write(event)
        else:  # as Go's server does it, in two chunks
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (event[:2000], event[2000:]):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")

    def do_POST(self):
        version, runtime, *rest = self.path.strip("/").split("/")
        assert (version, runtime) == ("2018-06-01", "runtime"), self.path
        if rest == ["init", "error"]:
            self.server.init_error = json.loads(self._whole())
            self.server.started_badly.set()
        else:
            _, id, what = rest
            invoked = self.server.under_way[id]
            invoked.headers = {name.lower(): value for name, value in self.headers.items()}
            self._error(invoked) if what == "error" else self._response(invoked)
        refused = bool(rest) and rest[-1] == "error" and self.server.refuses_errors
        with contextlib.suppress(ConnectionError):
            self.send_response(403 if refused else 202)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _error(self, invoked):
        assert invoked._chunks.empty(), "an error after the response has begun"
        invoked.error = json.loads(self._whole())
        assert self.headers["Lambda-Runtime-Function-Error-Type"] == invoked.error["errorType"]
        invoked.end()

    def _response(self, invoked):
        if invoked.headers.get("lambda-runtime-function-response-mode") != "streaming":
            invoked._chunks.put(self._whole())
            invoked.whole = True
        else:
            self._chunked(invoked)
        invoked.end()

    def _chunked(self, invoked):
        """RFC 9112, 7.1; only trailers that were announced count."""
        assert invoked.headers["transfer-encoding"] == "chunked"
        announced = {name.strip().lower() for name in invoked.headers["trailer"].split(",")}
        assert announced == TRAILERS
        while line := self.rfile.readline():
            size = int(line, 16)
            if size == 0:
                invoked.trailers = self._trailers()
                invoked.whole = True
                return
            data = self.rfile.read(size)
            if self.rfile.readline() != b"\r\n":
                return  # cut in mid-chunk
            if self.server.hangs_up_on == data:
                self.connection.close()
                return
            invoked._chunks.put(data)

    def _trailers(self):
        lines = iter(self.rfile.readline, b"\r\n")
        pairs = (line.decode().partition(":") for line in lines)
        return {name.lower(): value.strip() for name, _, value in pairs}

    def _whole(self):
        return self.rfile.read(int(self.headers["Content-Length"]))

    def log_message(self, *_):
        pass


class Lambda(ThreadingHTTPServer):
    """One execution environment: the API, and the process of a function."""

    daemon_threads = True

    def __init__(self, handler, env=None, command=None):
        super().__init__(("127.0.0.1", 0), _Paths)
        self.waiting, self.under_way = queue.Queue(), {}
        self.init_error, self.started_badly = None, threading.Event()
        self.hangs_up_on = None
        self.refuses_errors = False
        threading.Thread(target=self.serve_forever, args=[0.02], daemon=True).start()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  # closed when it stops
        self.process = subprocess.Popen(
            command or [sys.executable, "-m", "unbroken.deploy.aws_lambda"],
            env={
                **os.environ,
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server_port}",
                "AWS_LAMBDA_FUNCTION_NAME": "f",
                "LAMBDA_TASK_ROOT": str(HERE),
                "_HANDLER": handler,
                **(env or {}),
            },
            stderr=self.log,
        )

    def invoke(self, event=None, seconds=60):
        """Ask, without waiting. The deadline is `seconds` after the runtime takes the event."""
        invoked = Invoked(f"id-{len(self.under_way)}", event or {}, seconds)
        self.under_way[invoked.id] = invoked
        self.waiting.put(invoked)
        return invoked

    def freeze(self):
        """Between two invocations a process stands still, whatever it has begun
        (lambda/latest/dg: lambda-runtime-environment.html)."""
        if self.waiting.empty() and all(i.over.is_set() for i in self.under_way.values()):
            self.process.send_signal(signal.SIGSTOP)

    def took(self, invoked):
        """The clock runs; at the deadline Lambda kills the process."""
        invoked.deadline = time.time() + invoked.seconds
        late = threading.Timer(invoked.seconds, self._kill, [invoked])
        late.daemon = True
        late.start()

    def _kill(self, invoked):
        if not invoked.over.is_set():
            invoked.timed_out = True
            self.process.send_signal(signal.SIGKILL)

    def handle_error(self, request, client_address):
        kind = sys.exception()
        if not isinstance(kind, ConnectionError | ValueError):  # the process was killed
            raise kind

    def written(self):
        """What the function has written for its log."""
        self.log.seek(0)
        return self.log.read().decode()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.waiting.put(None)
        self.shutdown()
        self.server_close()
        self.log.close()
