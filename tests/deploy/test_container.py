"""The container's example as far as it can run without Docker: its Dockerfile as a script in a
clean folder, its Compose file's Redis and nginx as processes, what starts in it as no root.

What Docker would do is replaced, and nothing else: names by a name server, addresses by 127.0.0.2
and 127.0.0.3, ports by free ones. Compose's and Kubernetes' files go through their schemas.
"""

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).parents[1] / "stores"))

from dns_server import DnsServer
from dockerfile import Image, as_user
from redis_server import RedisServer, free_port, program

from unbroken import Client
from unbroken.wire.sse import SseDecoder

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "container"
PEERS = ROOT / ".venv-peers" / "bin"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
MODEL = "sim/demo?ttft=0.1&tps=40&tokens=200"  # five seconds
COMPOSE = yaml.safe_load((EXAMPLE / "compose.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
KUBERNETES = {
    part["kind"]: part for part in yaml.safe_load_all((EXAMPLE / "kubernetes.yaml").read_text())
}

here = pytest.mark.skipif(
    "CI" not in os.environ and (NGINX is None or sys.platform != "linux"),
    reason="it needs nginx, and a machine that is 127.0.0.2, too",
)
checked = pytest.mark.skipif(
    "CI" not in os.environ and not (PEERS / "check-jsonschema").exists(),
    reason="check-jsonschema is not in .venv-peers",
)


@pytest.fixture(scope="module")
def clean():
    """A folder that every user of this machine may enter; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def image(clean):
    return Image(EXAMPLE / "Dockerfile", ROOT, clean).build()


@contextlib.contextmanager
def nginx(folder, port, *addresses):
    """The example's nginx in `folder`, as the user that Compose says; its URL.

    `gateway` is what it asks for at these addresses, and `port`.
    """
    with DnsServer(*addresses) as names:
        text, front = (EXAMPLE / "nginx.conf").read_text("utf-8"), free_port()
        for ours, here in (
            ("127.0.0.11", f"127.0.0.1:{names.port}"),
            ("gateway:8080", f"gateway:{port}"),
            ("listen 8080", f"listen 127.0.0.1:{front}"),
            ("/tmp/", f"{folder}/"),
        ):
            assert ours in text
            text = text.replace(ours, here)
        folder.mkdir()
        folder.chmod(0o777)
        (folder / "nginx.conf").write_text(text)
        command = [NGINX, "-p", folder, "-c", folder / "nginx.conf", "-g", "daemon off;"]
        with subprocess.Popen(command, **as_user(SERVICES["nginx"]["user"])) as process:
            wait_for(lambda: listens(process, front))
            yield f"http://127.0.0.1:{front}"
            process.terminate()
        assert names.asked == {"gateway"}


class Site:
    """Compose's services as processes: Redis, two gateways, nginx."""

    def __init__(self, image, folder, stack):
        self.image, self._stack = image, stack
        self._redis = stack.enter_context(RedisServer(folder, *SERVICES["redis"]["command"][1:]))
        self.port, self.gateways = free_port(), {}
        entry, *more = SERVICES["keys"]["entrypoint"]
        assert image.entrypoint == [entry]
        self.key = self._said(*more, "create", "phone")
        for address in ("127.0.0.2", "127.0.0.3"):
            self.start(address)
        self.url = stack.enter_context(nginx(folder / "nginx", self.port, *self.gateways))

    def env(self, address="127.0.0.2"):
        """What Compose says, but in other places and with a second to drain."""
        said = SERVICES["gateway"]["environment"]
        store = said["UNBROKEN_STORE"].replace("redis://redis:6379", self._redis.url)
        place = {"UNBROKEN_HOST": address, "UNBROKEN_PORT": str(self.port)}
        return said | place | {"UNBROKEN_STORE": store, "UNBROKEN_DRAIN": "1"}

    def start(self, address):
        """A gateway. It is stopped by its process id, since all of these are children of ours."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        gateway = self.gateways[address] = self.image.start(env=self.env(address), **quiet)
        self._stack.callback(lambda: gateway.kill() or gateway.wait())
        wait_for(lambda: get(f"http://{address}:{self.port}/readyz"))

    def busy(self):
        """Which gateway is writing an answer."""
        pages = {one: get(f"http://{one}:{self.port}/metrics") for one in self.gateways}
        return next(one for one, page in pages.items() if "unbroken_open_answers 1.0" in page)

    def check(self, command, address="127.0.0.2"):
        """The exit code of a health check."""
        if command[0] in ("CMD", "CMD-SHELL"):
            command = command[1:] if command[0] == "CMD" else ["sh", "-c", *command[1:]]
        cli = f"{Path(program()).with_name('redis-cli')} -p {self._redis.port}"
        places = {"redis-cli": cli, "http://127.0.0.1:8080": self.url}
        for ours, here in places.items():
            command = [word.replace(ours, here) for word in command]
        with self.image.start_command(command, env=self.env(address)) as process:
            return process.wait(10)

    def _said(self, *arguments):
        with self.image.start(*arguments, env=self.env(), stdout=subprocess.PIPE) as process:
            return process.communicate()[0].strip()


@pytest.fixture
def site(image, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        yield Site(image, folder, stack)


class Reader(threading.Thread):
    """A browser's EventSource: asks once, and comes back with the last id that it has seen."""

    def __init__(self, url, key):
        super().__init__(daemon=True)
        self._url, self._key = f"{url}/stream?prompt=Hello&model={MODEL.replace('&', '%26')}", key
        self.text, self.visits, self._last = "", 0, ""

    def run(self):
        while self._last != "done":
            self.visits += 1
            with contextlib.suppress(OSError, http.client.HTTPException):  # it comes back
                self._read()
            time.sleep(0.05)

    def _read(self):
        headers = {"authorization": f"Bearer {self._key}"}
        headers |= {"last-event-id": self._last} if self._last else {}
        decoder = SseDecoder()
        with urllib.request.urlopen(urllib.request.Request(self._url, headers=headers)) as answer:
            while data := answer.read1(65536):
                for frame in decoder.feed(data):
                    self._take(frame)

    def _take(self, frame):
        if frame.data == b"[DONE]":
            self._last = "done"
        else:
            self.text += frame.data.decode()
            self._last = frame.id


def listens(process, port):
    assert process.poll() is None
    socket.create_connection(("127.0.0.1", port)).close()
    return True


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return answer.read().decode()


def wait_for(ready, seconds=30):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.02)
    pytest.fail("it did not start")


@here
def test_an_answer_whose_gateway_is_stopped_is_read_to_its_end_from_the_other(site):
    with Client() as client:
        whole = client.complete("sim/demo?ttft=0&tps=0&tokens=200", "Hello").text
    reader = Reader(site.url, site.key)
    reader.start()
    wait_for(lambda: len(reader.text) > 20)
    gateway = site.gateways[site.busy()]
    gateway.terminate()

    assert gateway.wait(10) == 0
    assert reader.text != whole
    reader.join(30)
    assert reader.text == whole
    assert reader.visits > 1
