"""The chat page in a real browser, against a real server that may be killed."""

import shutil
import signal

import pytest
from test_kill import Server

from unbroken.simulator.app import running
from unbroken.simulator.scenario import Scenario

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]

WORDS = " ".join(f"w{n}" for n in range(150))
EVIL = (
    "Hello <script>window.evil = 1</script><img src=x onerror='window.evil = 1'> "
    "[link](javascript:window.evil=1) <a href='https://x.example' onclick='evil=1'>there</a> "
    "<iframe src='https://x.example'></iframe> **bold** <div id='send' class='copy' style='top:0'>"
    "<svg><a xlink:href='javascript:evil=1'>s</a></svg></div> [data](data:text/html,evil) "
    "<form action='/stream'><input name='prompt'></form> [ours](/stream?prompt=x) "
    "<a href='HTTPS:evil.example'>odd</a> [note](#shared=a.b) <base href='https://x.example'>"
)
UPSTREAM = {
    "gpt-x": Scenario(ttft=0.2, tps=60, text=WORDS),
    "long": Scenario(ttft=0.1, tps=20, text=" ".join([WORDS] * 10)),
    "evil": Scenario(ttft=0, tps=0, text=EVIL),
    "code": Scenario(ttft=0, tps=0, text="# Title\n\n- one\n- two\n\n```py\nprint(1)\n```\n"),
}
FILE = """
[server]
models = ["openai/gpt-x", "openai/long", "openai/evil", "openai/code", "sim/demo"]
"""
DONE = '.answer[aria-busy="false"]'


@pytest.fixture
def browser():
    """A browser for one test: Playwright's greenlets must not live on beside other tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server(tmp_path):
    (tmp_path / "unbroken.toml").write_text(FILE)
    with running(UPSTREAM) as upstream:
        server = Server(tmp_path, upstream.url if hasattr(upstream, "url") else upstream)
        yield server.start()
        server.kill()


@pytest.fixture
def context(browser):
    context = browser.new_context()
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context, server):
    faults = []
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(server.url)
    yield page
    assert faults == []


def ask(page, model="openai/gpt-x", text="Tell me about cats."):
    page.select_option("#model", model)
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")


def begun(page, word="w9 "):
    page.locator(".answer .body", has_text=word).first.wait_for()


def whole(page):
    """The text of the answer when it is over."""
    page.locator(DONE).wait_for()
    return page.inner_text(".answer > .body").strip()


def test_an_answer_streams_and_its_figures_are_told(page):
    ask(page)
    begun(page)
    assert "first token" in page.inner_text(".facts")
    assert page.is_visible("#stop")

    assert whole(page) == WORDS
    facts = page.inner_text(".facts")
    assert all(word in facts for word in ("gpt-x", "first token", "tokens/s", " in, ", " out"))
    assert "simulated" not in facts
    assert page.is_visible("#send")


def test_a_simulated_answer_says_so(page):
    page.locator("#model option", has_text="sim/demo (simulated)").wait_for(state="attached")
    ask(page, "sim/demo")
    page.locator(DONE).wait_for()

    assert page.inner_text(".facts").startswith("simulated")


def test_reload_in_mid_answer(page):
    ask(page)
    begun(page)
    page.reload()
    begun(page, "w0 ")
    page.reload()

    assert whole(page) == WORDS
    assert page.inner_text(".question .body") == "Tell me about cats."
    assert page.locator(".answer").count() == 1


def test_a_dropped_network(page, context):
    ask(page)
    begun(page)
    context.set_offline(True)
    page.locator("#status", has_text="Offline").wait_for()
    page.wait_for_timeout(700)
    context.set_offline(False)

    assert whole(page) == WORDS


def test_kill_the_server_in_mid_answer(page, server):
    ask(page)
    begun(page)
    server.kill(signal.SIGKILL)
    page.locator("#status", has_text="Reconnecting").wait_for()
    server.start()

    assert whole(page) == WORDS
    page.reload()
    assert whole(page) == WORDS


def test_the_same_answer_streams_in_two_tabs_and_stops_in_both(page, context, server):
    ask(page, "openai/long")
    begun(page)
    other = context.new_page()
    other.goto(server.url)
    begun(other)
    page.click("#stop")

    for tab in (page, other):
        tab.locator(DONE).wait_for()
        assert tab.inner_text(".answer .end") == "Stopped."
    assert page.inner_text(".answer > .body") == other.inner_text(".answer > .body")
    assert WORDS.startswith(page.inner_text(".answer > .body").strip()[:300])


def test_a_question_asked_in_one_tab_is_answered_in_both(page, context, server):
    ask(page)
    whole(page)
    other = context.new_page()
    other.goto(server.url)
    other.locator(DONE).wait_for()
    page.fill("#prompt", "And again?")
    page.press("#prompt", "Enter")

    for tab in (page, other):
        tab.locator(DONE).nth(1).wait_for()
        assert tab.locator(".answer > .body").nth(1).inner_text().strip() == WORDS


def test_retry_takes_the_place_of_the_answer(page):
    ask(page)
    whole(page)
    page.get_by_role("button", name="Retry").click()
    begun(page)

    assert whole(page) == WORDS
    assert page.locator(".answer").count() == page.locator(".question").count() == 1


def test_a_link_shares_one_answer_read_only(page, browser, context):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page)
    whole(page)
    page.get_by_role("button", name="Share").click()
    page.locator("#status", has_text="link").wait_for()
    link = page.evaluate("() => navigator.clipboard.readText()")
    stranger = browser.new_context()
    tab = stranger.new_page()
    tab.goto(link)

    assert whole(tab) == WORDS
    assert tab.inner_text(".question .body") == "Tell me about cats."
    assert not tab.is_visible("#prompt")
    tab.goto(link.replace("ans_", "ans_x"))
    tab.locator("#status", has_text="opens nothing").wait_for()
    stranger.close()


LINKS = (
    "%2e%2e/%2e%2e/stream?prompt=BOUGHT&model=sim/demo&on_disconnect=keep&x=.t",
    "../../stream?prompt=BOUGHT&x=.t",
    "ans_x/../../../stream?prompt=BOUGHT.t",
    "ans_x?after=0&y=.t",
    "ans_x%2fshare.t",
    "ans_x",
    ".",
    "ans_x.t.t&token=other",
)


def test_a_link_of_a_stranger_asks_for_nothing_but_an_answer(context, server):
    context.add_init_script("localStorage.setItem('unbroken.key', 'ub-secret')")
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append((request.url, request.headers)))
    for link in LINKS:
        page.goto("about:blank")
        page.goto(f"{server.url}/#shared={link}")
        page.locator("#status", has_text="link").wait_for()

    assert [url for url, _ in asked if "stream" in url.removeprefix(server.url)] == []
    assert "ub-secret" not in str(asked)


def test_what_a_model_says_can_do_nothing(page):
    ask(page, "openai/evil")
    page.locator(DONE).wait_for()
    body = page.locator(".answer > .body")

    assert page.evaluate("() => window.evil") is None
    assert body.locator("script, img, iframe, [onclick], [onerror]").count() == 0
    assert body.locator("div, svg, form, input, base, [id], [class], [style]").count() == 0
    links = [link.get_attribute("href") for link in body.locator("a").all()]
    assert [link for link in links if link] == ["https://x.example"]
    assert body.locator("strong").inner_text() == "bold"
    assert body.locator("a", has_text="there").get_attribute("rel") == "noopener noreferrer"


def test_markdown_and_copying_code(page, context):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, "openai/code")
    page.locator(DONE).wait_for()
    page.click(".copy")
    page.locator("#status", has_text="copied").wait_for()

    assert page.locator(".answer li").count() == 2
    assert page.evaluate("() => navigator.clipboard.readText()") == "print(1)\n"


def test_by_keyboard_alone(page):
    page.locator("#prompt:focus").wait_for()
    page.locator("#model option").first.wait_for(state="attached")
    page.keyboard.type("Tell me")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("about cats.")
    page.keyboard.press("Enter")

    assert whole(page) == WORDS
    assert page.inner_text(".question .body") == "Tell me\nabout cats."
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Share"


def asked(page, server):
    """The messages of the first answer, as the gateway has them."""
    stream = page.evaluate(
        "() => Object.values(JSON.parse(localStorage['unbroken.conversations']))[0].turns[1].stream"
    )
    return page.request.get(f"{server.url}/v1/streams/{stream}").json()["request"]["messages"]


def test_the_system_prompt_is_kept_with_the_conversation(page, server):
    page.click("#settings-open")
    page.fill("#system", "Be brief.")
    page.get_by_role("button", name="Done").click()
    ask(page)
    whole(page)
    page.reload()
    page.locator(DONE).wait_for()

    assert asked(page, server)[0] == {"role": "system", "content": "Be brief."}
    assert page.input_value("#system") == "Be brief."


def test_what_is_typed_before_the_models_are_known_is_kept(page, server):
    held = []
    page.route("**/v1/models", lambda route: held.append(route))
    page.reload()
    page.click("#settings-open")
    page.fill("#system", "Be brief.")
    page.get_by_role("button", name="Done").click()
    page.fill("#prompt", "Tell me about cats.")
    page.press("#prompt", "Enter")
    while len(held) < 3:  # asked for at the start, after the settings and by the question
        page.wait_for_timeout(20)
    for route in held:
        route.continue_()

    assert whole(page) == WORDS
    assert asked(page, server) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Tell me about cats."},
    ]


FILL = """() => {
  const kept = {};
  let number = 0;
  for (const size of [100000, 1000, 1]) {
    for (;; number++) {
      const turns = [{ role: "user", text: "x".repeat(size) }];
      const [id, title] = [`old${number}`, `Old ${number}`];
      kept[id] = { id, title, model: "", system: "", turns, changed: number };
      try {
        localStorage.setItem("unbroken.conversations", JSON.stringify(kept));
      } catch {
        delete kept[id];
        break;
      }
    }
  }
  return number;
}"""


def test_when_the_browser_has_no_more_room_the_oldest_conversations_go(page):
    old = page.evaluate(FILL)
    page.reload()
    ask(page)
    assert whole(page) == WORDS
    page.reload()
    page.locator(DONE).wait_for()
    titles = page.locator("#list button").all_inner_texts()

    assert whole(page) == WORDS
    assert (titles[0], titles[1]) == ("Tell me about cats.", f"Old {old - 1}")
    assert len(titles) < old


def test_a_chosen_model_stays_chosen_when_settings_change(page):
    page.select_option("#model", "openai/code")
    page.click("#settings-open")
    with page.expect_response("**/v1/models"):
        page.get_by_role("button", name="Done").click()

    assert page.input_value("#model") == "openai/code"


def test_a_gateway_with_keys_asks_for_one(page, server, tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-m", "unbroken", "keys", "create", "phone"]
    store = ["--store", "sqlite:///answers.db"]
    made = subprocess.run([*command, *store], cwd=tmp_path, capture_output=True, text=True)
    key = next(word for word in made.stdout.split() if word.startswith("ub-"))
    server.kill()
    server.start()
    page.reload()
    page.locator("#settings[open]").wait_for()
    page.fill("#key", key)
    page.get_by_role("button", name="Done").click()
    page.locator("#model option", has_text="openai/gpt-x").wait_for(state="attached")
    ask(page)

    assert whole(page) == WORDS


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_by_day_and_night(browser, server, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 700}, color_scheme=scheme)
    page = context.new_page()
    page.goto(server.url)
    ask(page)
    assert whole(page) == WORDS
    back = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    dark = sum(int(n) for n in back.removeprefix("rgb(").removesuffix(")").split(",")) < 380

    assert dark == (scheme == "dark")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    assert not page.is_visible("#new")
    page.click("#menu")
    page.locator("#list button").first.wait_for()
    page.click("#new")
    assert page.locator(".question").count() == 0
    context.close()
