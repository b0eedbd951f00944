"""The container's example as far as it can run without Docker: its Dockerfile as a script in a
clean folder, its Compose file's Redis and nginx as processes, what starts in it as no root.

What Docker would do is replaced, and nothing else: names by a name server, addresses by 127.0.0.2
and 127.0.0.3, ports by free ones. Compose's and Kubernetes' files go through their schemas.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from dns_server import DnsServer
from dockerfile import Image, as_user, context, instructions
from ports import free_port
from redis_server import RedisServer, program
from websockets.sync.client import connect

from unbroken import Client
from unbroken.wire.sse import SseDecoder

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "container"
PEERS = ROOT / ".venv-peers" / "bin"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
MODEL = "sim/demo?ttft=0.1&tps=40&tokens=200"  # five seconds
COMPOSE = yaml.safe_load((EXAMPLE / "compose.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
GRACE = int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s"))
KUBERNETES = {
    part["kind"]: part
    for part in yaml.safe_load_all((EXAMPLE / "kubernetes.yaml").read_text("utf-8"))
}
CONTAINER = KUBERNETES["Deployment"]["spec"]["template"]["spec"]["containers"][0]

here = pytest.mark.skipif(
    "CI" not in os.environ
    and (sys.platform != "linux" or None in (NGINX, shutil.which("curl"), shutil.which("wget"))),
    reason="it needs nginx, curl, wget and a machine that is 127.0.0.2, too",
)
checked = pytest.mark.skipif(
    "CI" not in os.environ and not (PEERS / "hadolint").exists(),
    reason="hadolint, check-jsonschema and kubernetes-validate are not in .venv-peers",
)


@pytest.fixture(scope="module")
def clean():
    """A folder that every user of this machine may enter; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def image(clean):
    try:
        return Image(EXAMPLE / "Dockerfile", ROOT, clean).build()
    except LookupError as error:
        missing = pytest.fail if "CI" in os.environ else pytest.skip
        missing(str(error))


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
            try:
                wait_for(lambda: listens(process, front))
                yield f"http://127.0.0.1:{front}"
            finally:
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
        """What Compose says, but in other places, with a second to drain, and open to scenarios."""
        said = SERVICES["gateway"]["environment"]
        store = said["UNBROKEN_STORE"].replace("redis://redis:6379", self._redis.url)
        place = {"UNBROKEN_HOST": address, "UNBROKEN_PORT": str(self.port)}
        own = {"UNBROKEN_STORE": store, "UNBROKEN_DRAIN": "1", "UNBROKEN_SIMULATOR": "open"}
        return said | place | own

    def start(self, address):
        """A gateway, ready for work."""
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


@pytest.fixture(scope="module")
def site(image):
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
    pytest.fail("it was waited for in vain")


@here
def test_an_answer_whose_gateway_is_stopped_is_read_to_its_end_from_the_other(site):
    with Client() as client:
        whole = client.complete("sim/demo?ttft=0&tps=0&tokens=200", "Hello").text
    reader = Reader(site.url, site.key)
    reader.start()
    wait_for(lambda: len(reader.text) > 20)
    address = site.busy()
    gateway = site.gateways[address]
    gateway.terminate()

    assert gateway.wait(GRACE) == 0
    reader.join(30)
    assert reader.text == whole
    assert reader.visits > 1
    assert site.check(site.image.check, address) == 1
    assert {get(f"{site.url}/healthz") for _ in range(10)} == {'{"status":"ok"}'}
    site.start(address)


@here
def test_every_health_check_is_well(site):
    assert [site.check(site.image.check, address) for address in site.gateways] == [0, 0]
    assert site.check(SERVICES["redis"]["healthcheck"]["test"]) == 0
    assert site.check(SERVICES["nginx"]["healthcheck"]["test"]) == 0
    for probe in ("readinessProbe", "livenessProbe"):
        path = CONTAINER[probe]["httpGet"]["path"]
        assert '"status":"ok"' in get(f"http://127.0.0.2:{site.port}{path}")


@here
def test_only_who_has_a_key_is_answered_and_nobody_outside_sees_the_figures(site):
    def status(path, **headers):
        try:
            return get(f"{site.url}{path}", **headers) and 200
        except urllib.error.HTTPError as error:
            return error.code

    ask = "/stream?prompt=Hello&model=sim/demo?tps=0%26tokens=5"
    assert status(ask) == 401
    assert status(ask, authorization=f"Bearer {site.key}") == 200
    assert status("/metrics", authorization=f"Bearer {site.key}") == 404


@here
def test_the_last_command_of_the_page_prints_what_stands_there(site):
    page = (ROOT / "docs" / "howto" / "container.md").read_text("utf-8").rpartition("\n## ")[2]
    command, printed = page.replace("http://127.0.0.1:8080", site.url).split("\nprints")
    lines = [line[4:] for line in command.splitlines() if line.startswith("    ")]
    env = {**os.environ, "KEY": site.key}
    done = subprocess.run("\n".join(lines), shell=True, env=env, capture_output=True, text=True)

    assert done.stdout == printed.splitlines()[-1].strip()


@here
def test_a_websocket_passes_nginx(site):
    messages = [{"role": "user", "content": "Hello"}]
    start = {"type": "start", "request": {"model": "sim/demo?tps=0&tokens=5", "messages": messages}}
    headers = {"authorization": f"Bearer {site.key}"}
    with connect(f"{site.url.replace('http', 'ws')}/ws", additional_headers=headers) as socket:
        socket.send(json.dumps(start))
        said = [json.loads(message) for message in until_the_end(socket)]

    assert said[0]["type"] == "started"
    assert said[-1]["state"] == "complete"


def until_the_end(socket):
    for message in socket:
        yield message
        if json.loads(message)["type"] == "end":
            return


@here
def test_nginx_takes_no_more_from_an_upstream_than_its_reader_takes(serve, clean):
    piece, sent, left = b"x" * 65536, [], threading.Event()

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(1000):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            sent.append(number)
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    port = int(serve(app).rpartition(":")[2])
    with nginx(clean / "unbuffered", port, "127.0.0.1") as url:
        with urllib.request.urlopen(url, timeout=20) as answer:
            first = answer.read(9)
            before = -1
            while before < len(sent):  # until nothing moves any more
                before = len(sent)
                time.sleep(0.5)
            stuck = len(sent)

        assert first == b"x" * 9
        assert 0 < stuck < 1000
        assert left.wait(20)


def installed(image):
    """`name==version` of what the image holds besides us."""
    code = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    with image.start_command(["python", "-c", code], stdout=subprocess.PIPE) as process:
        found = {name.lower().replace("_", "-") for name in process.communicate()[0].split()}
    return {name for name in found if not name.startswith("unbroken==")}


def test_what_is_installed_is_what_the_lock_says_and_nothing_builds_anything(image):
    found = installed(image)
    locked = {line.split(" ;")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}

    assert found - locked == set()
    assert {"redis", "uvicorn", "genai-prices"} <= {name.split("==")[0] for name in found}
    assert not {"pip", "hatchling"} & {name.split("==")[0] for name in found}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_base_images_python_needs_no_compiler(image, clean, machine):
    python = re.search(r"FROM python:(3\.\d+)", (EXAMPLE / "Dockerfile").read_text("utf-8"))[1]
    platforms = " ".join(
        f"--platform {tag}_{machine}" for tag in ("manylinux2014", "manylinux_2_28")
    )
    wheels = f"--python-version {python} {platforms} --only-binary :all:"
    nowhere = f"--dry-run --quiet --no-deps --target {clean}/nowhere"
    pip = image.folder / "base" / "bin" / "pip"
    command = [pip, "install", *wheels.split(), *nowhere.split(), *installed(image)]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_is_not_root_and_may_write_its_data_only(image):
    code = "import os, sys; print(os.getuid()); open('unbroken.db', 'x')"
    with image.start_command(["python", "-c", code], stdout=subprocess.PIPE) as process:
        uid = process.communicate()[0]
    find = ["find", str(image.root), "-writable", "-type", "d"]
    with image.start_command(find, stdout=subprocess.PIPE) as process:
        writable = process.communicate()[0].split()

    assert (uid, process.returncode) == ("10001\n", 0)
    assert writable == [f"{image.root}{image.notes['VOLUME']}"]


def test_no_secret_of_the_developers_is_sent_to_the_builder(tmp_path):
    for name in (".env", "src/a.py", "src/.env", "src/__pycache__/a.pyc", "README.md", "x/y.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "sent").mkdir()
    context(tmp_path, (EXAMPLE / "Dockerfile.dockerignore").read_text(), tmp_path / "sent")
    sent = [path for path in (tmp_path / "sent").rglob("*") if path.is_file()]

    assert {str(path.relative_to(tmp_path / "sent")) for path in sent} == {"src/a.py", "README.md"}


def test_an_instruction_that_is_not_known_is_refused(tmp_path):
    (tmp_path / "Dockerfile").write_text("# none\nADD https://x.example \\\n  /x\nUSER 1:1\n")
    (tmp_path / "Dockerfile.dockerignore").write_text("*\n")

    with pytest.raises(ValueError, match="ADD https://x.example"):
        Image(tmp_path / "Dockerfile", tmp_path, tmp_path).follow()


def test_there_is_time_to_end_in_order():
    rest = 5  # what readers get after `drain`: server/process.py
    drain = int(SERVICES["gateway"]["environment"]["UNBROKEN_DRAIN"])
    pod = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
    env = {one["name"]: one["value"] for one in CONTAINER["env"]}
    sleep = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert drain + rest < GRACE
    assert pod["terminationGracePeriodSeconds"] > sleep + int(env["UNBROKEN_DRAIN"]) + rest


def test_all_files_mean_the_same_port():
    steps = dict(instructions((EXAMPLE / "Dockerfile").read_text("utf-8")))
    port = steps["EXPOSE"]

    assert f"UNBROKEN_PORT={port}" in steps["ENV"]
    assert f"http://gateway:{port};" in (EXAMPLE / "nginx.conf").read_text("utf-8")
    assert [one["containerPort"] for one in CONTAINER["ports"]] == [int(port)]


def test_what_kubernetes_is_told_of_fits_together():
    parts = {kind: part["spec"] for kind, part in KUBERNETES.items()}
    pods, ports = parts["Deployment"]["template"]["metadata"]["labels"], CONTAINER["ports"]
    paths = parts["Ingress"]["rules"][0]["http"]["paths"]
    chosen = [
        parts[kind]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")
    ]

    assert [*chosen, parts["Service"]["selector"]] == [pods] * 3
    assert parts["Service"]["ports"][0]["targetPort"] == ports[0]["name"]
    assert {path["path"]: path["backend"]["service"]["name"] for path in paths} == {
        "/": KUBERNETES["Service"]["metadata"]["name"],
        "/metrics": "nobody",
    }


def faults(tool, *arguments):
    done = subprocess.run([PEERS / tool, *arguments], capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode else ""


def dockerfile_faults(file):
    """But for advice about what only lies in the first stage, which is thrown away."""
    return faults("hadolint", *"--ignore DL3013 --ignore DL3042 --ignore DL3059".split(), file)


def compose_faults(file):
    return faults("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


def kubernetes_faults(file):
    return faults("kubernetes-validate", "--strict", file)


@checked
@pytest.mark.parametrize(
    ("name", "faults_of", "right", "wrong"),
    [
        ("Dockerfile", dockerfile_faults, "HEALTHCHECK", "HEALTHCHEQUE"),
        ("compose.yaml", compose_faults, "stop_grace_period", "stop_grace_time"),
        ("kubernetes.yaml", kubernetes_faults, "preStop", "beforeStop"),
    ],
)
def test_others_accept_the_files_and_would_see_a_mistake(tmp_path, name, faults_of, right, wrong):
    text = (EXAMPLE / name).read_text("utf-8")
    mistaken = tmp_path / name
    mistaken.write_text(text.replace(right, wrong), "utf-8")

    assert faults_of(EXAMPLE / name) == ""
    assert faults_of(mistaken) != ""
