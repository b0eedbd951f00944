"""Through a real nginx with its default buffering: tokens arrive one by one all the same."""

import contextlib
import shutil
import socket
import subprocess
import time
from urllib.parse import urlsplit

import pytest
from ports import free_port
from test_streams import SCENARIOS, Site, event_source, spoken

from unbroken import AsyncClient
from unbroken.server.gateway import Gateway
from unbroken.server.settings import Settings
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.memory import MemoryStore

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine")

CONFIG = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {upstream}; }} }}
}}
"""


@pytest.fixture
def proxied(serve, tmp_path):
    transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
    client = AsyncClient(api_key="k", transport=transport)
    url = serve(Gateway(MemoryStore(), client=client, settings=Settings(grace=0.2)))
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(CONFIG.format(folder=tmp_path, port=port, upstream=url))
    with subprocess.Popen([NGINX, "-c", config, "-p", tmp_path]) as nginx:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        yield Site(f"http://127.0.0.1:{port}", transport)
        nginx.terminate()


def test_tokens_arrive_while_the_answer_is_still_being_written(proxied):
    _, first = event_source(proxied, "/stream?prompt=x&model=sim/endless", stop=3)

    assert spoken(first)
    assert proxied.upstream.log[0].ended == "open"


def test_leaving_is_noticed_behind_the_proxy(proxied):
    address = urlsplit(proxied.url)
    with socket.create_connection((address.hostname, address.port)) as reader:
        reader.sendall(b"GET /stream?prompt=x&model=sim/endless HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200 OK" in reader.recv(100)
    for _ in range(300):
        if proxied.upstream.log[0].ended != "open":
            break
        time.sleep(0.02)

    assert proxied.upstream.log[0].ended == "client left"


def test_an_answer_is_resumed_through_the_proxy(proxied):
    path = "/stream?prompt=cats&model=sim/slow"
    _, first = event_source(proxied, path, stop=4)
    _, rest = event_source(proxied, path, last=first[-1].id)

    assert rest[-1].data == b"[DONE]"
    assert len(proxied.upstream.log) == 1
