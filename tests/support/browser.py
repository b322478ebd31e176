"""A page in a headless Chromium, where one is installed: how wide it is, what it complains of, and how it looks.

The browser is driven through two pipes by the Chrome DevTools Protocol: one JSON object after the other, each ended by
a zero byte. Nothing listens on a port, and nothing is loaded.
"""

import base64
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NARROW, WIDE = 390, 1200
LOOKS = tuple((width, scheme) for width in (NARROW, WIDE) for scheme in ("light", "dark"))
# Of what is wider than the page, and is in no box that scrolls: its tag and its right edge.
OUTSIDE = """
(() => {
  const wide = document.documentElement.clientWidth, guilty = [];
  for (const e of document.body.querySelectorAll('*')) {
    if (e.closest('svg') && e.tagName !== 'svg') continue;
    let scrolls = false;
    for (let p = e.parentElement; p; p = p.parentElement)
      scrolls ||= ['auto', 'scroll'].includes(getComputedStyle(p).overflowX);
    if (!scrolls && e.getBoundingClientRect().right > wide + 0.5) guilty.push(e.tagName + ' ' + e.className);
  }
  const text = [...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height);
  return JSON.stringify({
    scroll: document.documentElement.scrollWidth, wide, guilty,
    ground: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    smallest: text.length ? Math.min(...text) : null,
    alts: [...document.images].map(i => i.alt).concat([...document.querySelectorAll('svg')].map(
      s => s.getAttribute('aria-label') || '')),
    broken: [...document.images].filter(i => !i.naturalWidth).length,
    smooth: [...document.images].filter(i => getComputedStyle(i).imageRendering !== 'pixelated').length,
  });
})()
"""


@dataclass
class Look:
    """A page as it was shown once: `page` of `OUTSIDE`, complaints of its console, requests, and a picture (PNG)."""

    width: int
    scheme: str
    page: dict
    complaints: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    picture: bytes = b""


def browser():
    """The program; skips the test where none is installed."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("needs Chromium (the package chromium of the system)")
    return found


class Pipes:
    """The browser's end of both pipes: calls, their answers, and the events that came meanwhile."""

    def __init__(self, to, back):
        self.to, self.back, self.rest, self.events, self.number = to, back, b"", [], 0

    def read(self):
        while b"\0" not in self.rest:
            part = os.read(self.back, 2**20)
            assert part, "the browser ended"
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def __call__(self, method, session=None, **parameters):
        self.number += 1
        call = {"id": self.number, "method": method, "params": parameters}
        os.write(self.to, json.dumps(call | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (message := self.read()).get("id") != self.number:
            self.events.append(message)
        assert "error" not in message, (method, message["error"])
        return message["result"]

    def wait(self, method):
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.read())


@contextmanager
def opened(folder):
    """A running browser with its profile in a folder: a `Pipes`."""
    program = browser()
    read_calls, calls = os.pipe()
    answers, write_answers = os.pipe()
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder}",
    )
    # The protocol's ends are the descriptors 3 and 4.
    redirect = f'exec "$0" "$@" 3</dev/fd/{read_calls} 4>/dev/fd/{write_answers}'
    process = subprocess.Popen(
        ["sh", "-c", redirect, program, *flags, "about:blank"],
        pass_fds=(read_calls, write_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_calls)
    os.close(write_answers)
    try:
        yield Pipes(calls, answers)
    finally:
        process.kill()
        process.wait()
        os.close(calls)
        os.close(answers)


def looks(path, folder, shots=LOOKS):
    """A page, at each width and colour scheme: `Look`s. `folder`: for the browser's own files."""
    seen = []
    with opened(folder) as call:
        target = call("Target.createTarget", url="about:blank")["targetId"]
        session = call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            call(f"{domain}.enable", session)
        for width, scheme in shots:
            size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width == NARROW}
            call("Emulation.setDeviceMetricsOverride", session, **size)
            feature = {"name": "prefers-color-scheme", "value": scheme}
            call("Emulation.setEmulatedMedia", session, features=[feature])
            call.events.clear()
            call("Page.navigate", session, url=path.absolute().as_uri())
            call.wait("Page.loadEventFired")
            value = call("Runtime.evaluate", session, expression=OUTSIDE, returnByValue=True)["result"]["value"]
            content = call("Page.getLayoutMetrics", session)["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": width, "height": min(content["height"], 12000), "scale": 1}
            shot = call("Page.captureScreenshot", session, clip=clip, captureBeyondViewport=True)["data"]
            seen.append(Look(width, scheme, json.loads(value), *_told(call.events), base64.b64decode(shot)))
    return seen


def _told(events):
    """(complaints, addresses that were asked for) of the events of a page."""
    complaints, requests = [], []
    for event in events:
        about = event.get("params", {})
        if event.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            complaints.append(about)
        if event.get("method") == "Network.requestWillBeSent":
            requests.append(about["request"]["url"])
    return complaints, [url for url in requests if not url.startswith("data:")]


def check_page(path, folder):
    """A report is well shown everywhere: returns its `Look`s, whose pictures are written beside the browser's files."""
    seen = looks(path, folder / "profile")
    for look in seen:
        where = (look.width, look.scheme)
        (folder / f"{path.parent.name}-{look.width}-{look.scheme}.png").write_bytes(look.picture)
        assert look.page["scroll"] <= look.page["wide"] == look.width, (where, look.page["guilty"])
        assert not look.page["guilty"] and not look.complaints, (where, look.page["guilty"], look.complaints)
        assert look.requests == [path.absolute().as_uri()], where
        assert look.page["broken"] == look.page["smooth"] == 0, where
        assert all(" " in alt and not alt.endswith((".png", ".svg")) for alt in look.page["alts"]), look.page["alts"]
        assert look.page["smallest"] is None or look.page["smallest"] >= 9, (where, look.page["smallest"])
    grounds = {scheme: {look.page["ground"] for look in seen if look.scheme == scheme} for scheme in ("light", "dark")}
    assert not grounds["light"] & grounds["dark"]
    return seen
