"""Pages of others, and a gateway that has no keys: they don't reach it, and programs do."""

import asyncio
import subprocess
import sys

import pytest
from ports import free_port
from starlette.applications import Starlette
from starlette.routing import Mount
from test_streams import ASK, SCENARIOS, Site
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from unbroken import AsyncClient
from unbroken.server.auth import Keys, NewKey
from unbroken.server.csrf import is_loopback
from unbroken.server.gateway import Gateway
from unbroken.server.settings import Settings
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.memory import MemoryStore

EVIL, FRIEND = "https://evil.example", "https://chat.example"


async def somebody(_http):
    return "ann"


def gateway(store=None, **given):
    transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
    client = AsyncClient(api_key="k", transport=transport)
    settings = Settings(grace=0.2, cors=given.pop("cors", [FRIEND]))
    return Gateway(store or MemoryStore(), client=client, settings=settings, **given)


@pytest.fixture
def site(serve):
    return Site(serve(gateway()), None)


def asked(site, **headers):
    """The status of a question that any page may send without leave: its body is plain text."""
    named = {"content_type": "text/plain", **headers}
    return site.call("POST", "/v1/streams", {"model": "sim/quick", **ASK}, **named)[0]


def opened(site, **headers):
    """Whether a WebSocket opens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with connect(site.url.replace("http", "ws") + "/ws", additional_headers=named):
        return True


def test_a_page_of_others_does_not_start_an_answer(site):
    status, said = site.json("POST", "/v1/streams", {"model": "sim/quick", **ASK}, origin=EVIL)

    assert status == 403
    assert (said["error"]["code"], EVIL in said["error"]["message"]) == ("origin_not_allowed", True)
    strange = [EVIL, "null", "", "http://[", site.url.replace(":", "://", 1)]
    assert {asked(site, origin=origin) for origin in strange} == {403}
    assert site.json("GET", "/v1/streams")[1]["data"] == []


def test_a_page_of_others_opens_no_socket(site):
    with pytest.raises(InvalidStatus, match="403"):
        opened(site, origin=EVIL)
    assert opened(site)


def test_an_image_of_another_page_asks_nothing(site):
    image = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}

    assert site.call("GET", "/stream?prompt=x&model=sim/quick", **image)[0] == 403
    assert site.call("GET", "/docs", **link)[0] == 200
    assert site.call("GET", "/stream?prompt=x&model=sim/quick", **link)[0] == 403  # in a frame


@pytest.mark.parametrize("origin", [None, FRIEND, "itself"])
def test_programs_its_own_page_and_those_that_may_reach_it(site, origin):
    named = {"origin": site.url if origin == "itself" else origin} if origin else {}

    assert asked(site, **named) == 201
    assert opened(site, **named)


def test_with_leave_for_all_all_reach_it(serve):
    site = Site(serve(gateway(cors=["*"])), None)

    assert asked(site, origin=EVIL) == 201
    assert opened(site, origin=EVIL)


def test_behind_keys_the_key_decides(serve):
    store = MemoryStore()
    key = asyncio.run(Keys(store).create(NewKey(name="phone")))
    site = Site(serve(gateway(store)), None)

    assert asked(site, origin=EVIL) == 401
    assert asked(site, origin=EVIL, authorization=f"Bearer {key}") == 201


def test_a_page_of_others_does_not_ask_with_the_cookies_of_an_apps_users(serve):
    site = Site(serve(gateway(authenticate=somebody)), None)

    assert asked(site, origin=EVIL) == 403
    assert asked(site, sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
    with pytest.raises(InvalidStatus, match="403"):
        opened(site, origin=EVIL)


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"origin": FRIEND},
        {"origin": EVIL, "authorization": "Bearer something"},  # no page of others knows it
        {"origin": "https://app.example", "sec_fetch_site": "same-origin"},  # behind a proxy
    ],
)
def test_the_users_of_an_app_ask(serve, named):
    site = Site(serve(gateway(authenticate=somebody)), None)

    assert asked(site, **named) == 201
    assert opened(site, **named)


def test_a_mounted_gateway_has_the_names_of_its_app(serve):
    url = serve(Starlette(routes=[Mount("/llm", gateway())]))
    site = Site(f"{url}/llm", None)

    assert asked(site, host="app.example", origin="https://app.example") == 201
    assert asked(site, host="app.example", origin=EVIL) == 403


@pytest.fixture
def process(tmp_path):
    """`unbroken serve` on loopback, with a page that may ask."""
    port = free_port()
    (tmp_path / "unbroken.toml").write_text(f'[server]\nport = {port}\ncors = ["{FRIEND}"]\n')
    command = [sys.executable, "-m", "unbroken", "serve", "--store", "memory:"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as running:
        running.stdout.readline()
        yield Site(f"http://127.0.0.1:{port}", None)
        running.terminate()


def test_a_name_that_was_pointed_here_is_not_ours(process):
    port = process.url.rpartition(":")[2]
    names = [f"127.0.0.1:{port}", "localhost", f"LOCALHOST:{port}", "127.1.2.3", f"[::1]:{port}"]

    assert process.call("GET", "/v1/streams", host=f"evil.example:{port}")[0] == 403
    assert asked(process, host=f"evil.example:{port}", origin=f"http://evil.example:{port}") == 403
    assert asked(process, host="evil.example", origin=FRIEND) == 403
    assert {process.call("GET", "/v1/streams", host=name)[0] for name in names} == {200}
    assert process.call("GET", "/v1/streams", host="chat.example")[0] == 200


HOSTS = [
    ("localhost", True),
    ("127.0.0.1", True),
    ("127.0.0.2", True),
    ("::1", True),
    ("[::1]", True),
    ("0.0.0.0", False),
    ("", False),
    ("192.168.1.7", False),
    ("127.0.0.1.evil.example", False),
    ("localhost.evil.example", False),
]


@pytest.mark.parametrize(("host", "here"), HOSTS)
def test_what_is_this_machine(host, here):
    assert is_loopback(host) is here
