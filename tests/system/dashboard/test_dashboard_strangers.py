"""Who may not: viewers see no button, and what another site's page tries in the same browser is refused."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.dashboard.dashboard_page import Dashboard, buttons, chromium, dashboard, opened, shown
from tests.system.harness import Service, eventually
from tests.system.killable_service import KillableService
from tests.system.other_user import NOBODY, as_nobody, let_through, open_folder

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.xdist_group("dashboard"), pytest.mark.timeout(180)]

TRIES = """
const [page, token, done] = arguments;
const authorization = token ? { Authorization: `Bearer ${token}` } : {};
const tries = [];
for (const path of ["api/reload", "api/stream", "session", ""])
  for (const method of ["GET", "POST"])
    for (const mode of ["cors", "no-cors"])
      for (const credentials of ["omit", "include"])
        for (const headers of [{}, authorization])
          tries.push(
            fetch(page + path, { method, mode, credentials, headers, body: method === "POST" ? "x" : undefined }).then(
              (answer) => (answer.type === "opaque" ? "opaque" : answer.text()), () => "refused"));
const loads = (name, attributes) => new Promise((resolve) => {
  const node = Object.assign(document.createElement(name), attributes);
  node.onload = () => resolve(`${name} loaded`);
  node.onerror = () => resolve("refused");
  document.body.append(node);
});
tries.push(loads("script", { src: page + "main.js" }), loads("img", { src: page + "api/reload" }));
tries.push(loads("link", { rel: "stylesheet", href: page + "style.css" }));
const form = document.createElement("form");
Object.assign(form, { method: "POST", action: page + "api/reload", target: "frame" });
document.body.append(Object.assign(document.createElement("iframe"), { name: "frame" }), form);
form.submit();
Promise.all(tries).then((found) => done([...new Set(found)]));
"""
"""What a page can send to another address: fetch in each way, with what it could have learned, and the others."""


ORDER = """
const [path, token, done] = arguments;
const headers = { Authorization: `Bearer ${token}` };
fetch(path, { method: "POST", headers }).then((answer) => answer.json()).then(done);
"""
"""What the page itself does."""


class _Blank(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><body>another site")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def another_site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Blank) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def token(browser: Chrome) -> str:
    return str(browser.execute_script("return sessionStorage.getItem('stillup-token')"))


def seen(service: Service) -> list[str]:
    """What was asked of the supervisor that would have changed something."""
    with service.client.events() as events:
        return [event.text for event in events if event.text.startswith("POST")]


def test_another_site(browser: Chrome, service: KillableService, page: Dashboard, another_site: str) -> None:
    """Whatever its page sends is refused, with the token even; nothing is done, and nothing is read."""
    opened(browser, page)
    known = token(browser)
    assert len(known) > 30
    browser.switch_to.new_window("tab")
    for place in (another_site, another_site.replace("127.0.0.1", "localhost")):
        browser.get(place)
        found = set(browser.execute_async_script(TRIES, page.url, known))
        assert found <= {"refused", "opaque"}, found
        assert "refused" in found
        assert browser.execute_script("return sessionStorage.getItem('stillup-token')") is None
    browser.close()
    browser.switch_to.window(browser.window_handles[0])
    assert seen(service) == []
    assert service.generations() == [1]
    assert browser.execute_async_script(ORDER, "/api/abort", known)["type"] == "urn:stillup:problem:out-of-order"
    assert len(seen(service)) == 1


def test_a_name_that_leads_here(tmp_path: Path, service: KillableService, page: Dashboard) -> None:
    """DNS rebinding: a site whose name is 127.0.0.1 by now is the same origin to the browser, and no name of ours."""
    with chromium(tmp_path, "host-resolver-rules=MAP evil.test 127.0.0.1") as browser:
        browser.get(f"http://evil.test:{page.port}/")
        assert browser.find_element("tag name", "body").text == "this is no name of the dashboard"
        asked = """
            const done = arguments[0];
            const paths = ["/session", "/api/reload", "/api/stream", "/", "/main.js"];
            const ask = (path) => fetch(path, { method: "POST", body: "x" }).then((answer) => answer.status);
            Promise.all(paths.map(ask)).then(done);
        """
        assert browser.execute_async_script(asked) == [421] * 5
    assert service.generations() == [1]


@pytest.fixture
def viewers_folder() -> Iterator[Path]:
    with open_folder() as folder:
        (folder / "home").mkdir()
        os.chown(folder / "home", NOBODY, NOBODY)
        yield folder


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_buttons_by_role(viewers_folder: Path, role: str) -> None:
    """Somebody else's dashboard shows what their role may see, and has the buttons for what it may do."""
    become = as_nobody()
    home = viewers_folder / "home"
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home), "XDG_RUNTIME_DIR": str(home)}
    service = Service(viewers_folder, "main:app", f"--{role}", f"uid:{NOBODY}", "--probation", "0")
    service.write()
    service.tracebacks_expected = True
    options: dict[str, Any] = {"become": become, "env": environment, "cwd": home}
    with service:
        let_through(service)
        with dashboard(service.runtime, **options) as page, chromium(home, become=become, home=home) as browser:
            opened(browser, page)
            eventually(lambda: role in shown(browser, "facts"), "the role is shown")
            eventually(lambda: "gen 1" in shown(browser, "generations"), "the service is shown")
            some = [] if role == "viewer" else ["Reload", "Roll back", "+ worker"]
            assert buttons(browser) == some
            service.write("print('a secret', flush=True)\nimport nosuch\n")
            service.settled(service.client.reload().id)
            eventually(lambda: "Failed: import" in shown(browser, "failure-title"), "the failure is shown")
            assert ("a secret" in shown(browser, "failure-output")) == (role == "operator")
            service.write()
            said = browser.execute_async_script(ORDER, "/api/reload", token(browser))
            assert ("needs" in said.get("detail", "")) == (role == "viewer"), said
