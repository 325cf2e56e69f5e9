"""A real headless Chromium, driven through its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/).

A WebSocket and JSON are all that takes, so there is no driver beside the browser itself, whose version would have to
fit. It waits for what the page shows by a MutationObserver of the page's own: nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

CHROMIUM = "chromium"
PATIENCE = 60.0  # seconds after which a test has failed
_KEYS = {"Tab": (9, "\t"), "Enter": (13, "\r"), "Space": (32, " "), "ArrowDown": (40, "")}
_UNTIL = """
new Promise((resolve) => {
  const check = () => {
    const found = (() => { try { return %s; } catch { return null; } })();
    if (found) { watch.disconnect(); resolve(found); }
  };
  const watch = new MutationObserver(check);
  watch.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
  check();
})
"""


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._choosers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []
        """What went wrong in the page: violations of its policy, exceptions, and what the console has as an error."""
        self.requests: list[tuple[str, str]] = []
        """The method and URL of each."""
        self._change: Callable[[Any], Any] = lambda told: told
        self.reading = asyncio.create_task(self._read())

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command's result."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async with asyncio.timeout(PATIENCE):
            return await answer

    async def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Log", "Network", "Audits", "DOM"):
            await self.send(f"{domain}.enable")
        await self.send("Page.setInterceptFileChooserDialog", enabled=True)
        self._loaded.clear()
        await self.send("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE):
            await self._loaded.wait()

    async def evaluate(self, expression: str) -> Any:
        """A JavaScript expression's value, which JSON can hold; a promise's, when it is there."""
        answer = await self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Waits until the page makes the expression true."""
        return await self.evaluate(_UNTIL % expression)

    async def text(self, selector: str) -> str:
        """What is shown of the first element."""
        return str(await self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def press(self, key: str) -> None:
        """A key, as a person presses it."""
        code, text = _KEYS[key]
        named = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": code}
        for kind in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, text=text if kind == "keyDown" else "", **named)

    async def type(self, text: str) -> None:
        await self.send("Input.insertText", text=text)

    async def choose(self, file: Path) -> None:
        """Answers the file dialog that the page has opened, or opens next."""
        async with asyncio.timeout(PATIENCE):
            chooser = await self._choosers.get()
        await self.send("DOM.setFileInputFiles", files=[str(file)], backendNodeId=chooser["backendNodeId"])

    async def screen(
        self, width: int, height: int, *, dark: bool = False, scale: float = 1, mobile: bool = False
    ) -> None:
        """The window's size in CSS pixels, and which colours its user prefers."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        await self.send("Emulation.setDeviceMetricsOverride", **metrics)
        preferred = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[preferred])

    async def offline(self, *, gone: bool) -> None:
        """Whether the page reaches nobody."""
        await self.send(
            "Network.emulateNetworkConditions", offline=gone, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    async def alter(self, path: str, change: Callable[[Any], Any]) -> None:
        """From now on the page gets ``change`` of the JSON at ``path``."""
        self._change = change
        await self.send("Fetch.enable", patterns=[{"urlPattern": f"*{path}", "requestStage": "Response"}])

    async def _alter(self, request: str) -> None:
        body = await self.send("Fetch.getResponseBody", requestId=request)
        text = base64.b64decode(body["body"]) if body["base64Encoded"] else body["body"]
        altered = base64.b64encode(json.dumps(self._change(json.loads(text))).encode()).decode()
        answer = {"responseCode": 200, "responseHeaders": [{"name": "content-type", "value": "application/json"}]}
        await self.send("Fetch.fulfillRequest", requestId=request, body=altered, **answer)

    async def nameless(self) -> list[str]:
        """Roles of what one can use, and that has no name for a screen reader."""
        tree = (await self.send("Accessibility.getFullAXTree"))["nodes"]
        used = {"button", "textbox", "combobox", "link", "image", "img", "DisclosureTriangle", "region"}
        shown = [node for node in tree if not node["ignored"] and node["role"]["value"] in used]
        return [node["role"]["value"] for node in shown if not node.get("name", {}).get("value")]

    async def picture(self) -> bytes:
        """What is shown, as a WebP."""
        answer = await self.send("Page.captureScreenshot", format="webp", quality=90)
        return base64.b64decode(answer["data"])

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answer(told)
            else:
                self._event(told["method"], told["params"])

    def _answer(self, told: dict[str, Any]) -> None:
        answer = self._answers.pop(told["id"])
        if "error" in told:
            answer.set_exception(AssertionError(told["error"]))
        else:
            answer.set_result(told["result"])

    def _event(self, method: str, told: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Page.fileChooserOpened":
            self._choosers.put_nowait(told)
        elif method == "Network.requestWillBeSent":
            self.requests.append((told["request"]["method"], told["request"]["url"]))
        elif method == "Fetch.requestPaused":
            self._altering = asyncio.create_task(self._alter(told["requestId"]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif method == "Audits.issueAdded" and "contentSecurityPolicyIssueDetails" in told["issue"]["details"]:
            self.complaints.append(str(told["issue"]["details"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")


@asynccontextmanager
async def browsing(folder: Path, arguments: Sequence[str] = ()) -> AsyncGenerator[Page]:
    """A browser with one empty tab, and a profile in ``folder`` that nobody used before."""
    program = shutil.which(CHROMIUM)
    assert program, "no chromium; 'make test-system' installs Debian's"
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    process = await asyncio.create_subprocess_exec(
        *(program, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run"),
        *("--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server", "--hide-scrollbars", *root, *arguments),
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            port = await _port(process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = [tab for tab in await answer.json() if tab["type"] == "page"]
            async with session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                try:
                    yield page
                finally:
                    page.reading.cancel()
                    await asyncio.gather(page.reading, return_exceptions=True)
    finally:
        await _end(process)


async def _port(process: asyncio.subprocess.Process) -> int:
    """It says so on its standard error."""
    assert process.stderr
    async for line in process.stderr:
        if line.startswith(b"DevTools listening on "):
            return int(line.decode().split("/devtools")[0].rpartition(":")[2])
    raise AssertionError("chromium ended")


async def _end(process: asyncio.subprocess.Process) -> None:
    """And all that it started, which are in its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    await process.communicate()
