"""Proxies from the environment: found, shown their password, and nothing else; both transports."""

import asyncio
import socket
import socketserver
import threading
import urllib.parse

import pytest

from unbroken import AsyncClient, Client, ConnectFailed, RecoveryPolicy
from unbroken.simulator.app import running
from unbroken.transport.proxies import Proxies

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
SECRET = "Basic YWRhOnMzY3JldCE="  # ada:s3cret!


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Proxy(socketserver.ThreadingTCPServer):
    """Passes plain requests on, a connection each; digs no tunnels. Keeps the heads it saw."""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Passing)
        self.seen = []

    @property
    def port(self):
        return self.server_address[1]


class _Passing(socketserver.StreamRequestHandler):
    def handle(self):
        line = self.rfile.readline().decode()
        named = {}
        while (field := self.rfile.readline().strip()) != b"":
            name, _, value = field.decode().partition(": ")
            named[name.lower()] = value
        self.server.seen.append((line.strip(), named))
        method, target, version = line.split()
        if method == "CONNECT":
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            return
        self._pass_on(urllib.parse.urlsplit(target), method, version, named)

    def _pass_on(self, target, method, version, named):
        body = self.rfile.read(int(named["content-length"]))
        hidden = ("proxy-authorization", "connection")
        fields = [f"{name}: {value}" for name, value in named.items() if name not in hidden]
        head = "\r\n".join([f"{method} {target.path} {version}", *fields, "connection: close"])
        with socket.create_connection((target.hostname, target.port)) as upstream:
            upstream.sendall(f"{head}\r\n\r\n".encode() + body)
            while data := upstream.recv(65536):
                self.wfile.write(data)


@pytest.fixture
def proxy():
    with Proxy() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(base_url):
    with Client(api_key="k", base_url=base_url, recovery=RecoveryPolicy(attempts=1)) as client:
        return client.complete("openai/gpt-x?ttft=0&tps=0", "hi").text


def ask_async(base_url):
    async def main():
        once = RecoveryPolicy(attempts=1)
        async with AsyncClient(api_key="k", base_url=base_url, recovery=once) as client:
            return (await client.complete("openai/gpt-x?ttft=0&tps=0", "hi")).text

    return asyncio.run(main())


both = pytest.mark.parametrize("ask", [ask, ask_async])


@both
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_plain_request_goes_through_it(monkeypatch, proxy, ask, scheme):
    monkeypatch.setenv("HTTP_PROXY", f"{scheme}ada:s3cret%21@127.0.0.1:{proxy.port}")
    monkeypatch.setenv("http_proxy", f"{scheme}ada:s3cret%21@127.0.0.1:{proxy.port}")
    with running() as url:
        said = ask(f"{url}/v1")
    ((line, named),) = proxy.seen

    assert said
    assert line == f"POST {url}/v1/chat/completions HTTP/1.1"
    assert named["proxy-authorization"] == SECRET
    assert named["authorization"] == "Bearer k"


@both
def test_a_tunnel_is_asked_for_and_the_key_not_shown(monkeypatch, proxy, ask):
    monkeypatch.setenv("https_proxy", f"http://ada:s3cret%21@127.0.0.1:{proxy.port}")
    with pytest.raises(ConnectFailed, match="403"):
        ask("https://provider.example/v1")
    ((line, named),) = proxy.seen

    assert line.startswith("CONNECT provider.example:443 HTTP/")
    assert named["proxy-authorization"] == SECRET
    assert "authorization" not in named


@both
@pytest.mark.parametrize("exempt", ["127.0.0.1", "*", "10.0.0.1,127.0.0.1"])
def test_hosts_that_go_without(monkeypatch, proxy, ask, exempt):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("no_proxy", exempt)
    with running() as url:
        assert ask(f"{url}/v1")

    assert proxy.seen == []


@both
def test_a_kind_of_proxy_that_will_not_do(monkeypatch, ask):
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(ConnectFailed, match="socks5://127.0.0.1, and only http:// and https://"):
        ask("http://provider.example/v1")


def test_all_proxy_is_for_what_has_none_of_its_own(monkeypatch):
    monkeypatch.setenv("all_proxy", "http://one:1")
    monkeypatch.setenv("https_proxy", "http://other:2")
    found = Proxies()

    assert found.of("http://provider.example/v1").url == "http://one:1"
    assert found.of("https://provider.example/v1").url == "http://other:2"
