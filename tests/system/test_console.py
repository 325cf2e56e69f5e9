"""The console in a real Chromium, at a real ``shoal up``. SHOAL_SCREENS=FOLDER keeps pictures of it for the docs."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from shoal.client import AsyncClient
from shoal.errors import NotFound
from shoal.local import setup
from shoal.modelstore.making import build, efficientnet
from shoal.service import api_keys
from support.browser import Page, browsing
from support.pictures import encode
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier, add_tiny_detector, add_tiny_segmenter
from support.token_issuer import AUDIENCE, Issuer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

SCREENS = os.environ.get("SHOAL_SCREENS")
"""Where to leave pictures of the page, which then has a model that knows cats."""
SAMPLES = Path(__file__).parents[2] / "samples"
MISSING = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
HOSTILE = """"><img src=x onerror="window.taken=1"><script>window.taken=1</script>'`${window.taken=1}"""
ISSUER = Issuer()
LAPTOP, PHONE = (1280, 860), (360, 780)
FOCUSED = "document.activeElement.id"
ANSWERED = "!document.getElementById('answer').hidden"
LIVE = r"""
(name) => {
  const row = [...document.querySelectorAll('#model-rows tr')].find((each) => each.cells[0].textContent === name);
  const cells = [...row.cells].map((cell) => cell.textContent);
  return cells[6].endsWith('ms') && parseFloat(cells[8]) >= 1 ? cells : null;
}
"""
"""A model's row, once it tells how long requests take and how large batches are."""
WIDE = "[...document.querySelectorAll('section, html')].filter((n) => n.scrollWidth > n.clientWidth).map((n) => n.id)"
"""What sticks out of itself."""
CONTRAST = """
((selectors) => {
  const channels = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = (text) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = channels(text).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    return channels(colour)[3] === 0 ? ground(node.parentElement) : colour;
  };
  return selectors.map((selector) => {
    const node = document.querySelector(selector);
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))];
    return [selector, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
})(%s)
"""
"""Of texts against what is behind them (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio)."""


def add_models(store: Path) -> None:
    add_tiny_classifier(store)
    add_tiny_detector(store)
    add_tiny_segmenter(store)
    if SCREENS:
        build.add_model(store, *efficientnet.prepare(store.parent / "cache", setup.FIRST_MODEL))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("console")
    (folder / "jwks.json").write_text(ISSUER.key_set)
    known = f"issuer: {ISSUER.name!r}, audiences: [{AUDIENCE}], jwks_file: {folder}/jwks.json, models_claim: models"
    tokens = f"router: {{tokens: {{company: {{{known}}}}}}}"
    with running_stack(folder / "home", models=add_models, service=tokens) as running:
        yield running


@pytest.fixture
async def page(stack: Stack, tmp_path: Path) -> AsyncGenerator[Page]:
    """The page as it is opened first. What it complains of fails its test."""
    async with browsing(tmp_path / "profile") as opened:
        await opened.screen(*LAPTOP)
        await opened.open(f"http://{stack.target}/")
        yield opened
        assert opened.complaints == []


@pytest.fixture
def red(tmp_path: Path) -> Path:
    file = tmp_path / f"{HOSTILE.replace('/', '')}.jpg"
    file.write_bytes(solid("red"))
    return file


def solid(colour: str) -> bytes:
    return encode(Image.new("RGB", (120, 80), colour))


async def enter(page: Page, key: str) -> None:
    """As a person without a mouse: the key's field has the focus."""
    assert await page.evaluate(FOCUSED) == "key"
    await page.type(key)
    await page.press("Enter")
    await page.until("!document.getElementById('console').hidden")


async def pick(page: Page, file: Path) -> None:
    assert await page.evaluate(FOCUSED) == "file"
    await page.press("Space")
    await page.choose(file)
    await page.until(ANSWERED)


async def ask(page: Page, model: str) -> None:
    """Chooses another model for the picture that is there."""
    chosen = f"Object.assign(document.getElementById('model'), {{value: {json.dumps(model)}}})"
    await page.evaluate(f"{chosen}.dispatchEvent(new Event('change')), 1")
    await page.until(f"{ANSWERED} && document.getElementById('progress').textContent.startsWith({json.dumps(model)})")


@asynccontextmanager
async def client(stack: Stack, key: str = "") -> AsyncGenerator[AsyncClient]:
    async with AsyncClient(stack.target, api_key=key or stack.api_key) as made:
        yield made


async def test_a_keyboard_leads_from_the_page_to_a_label(stack: Stack, page: Page, red: Path) -> None:
    await enter(page, stack.api_key)
    await ask_first(page, "tiny")
    await pick(page, red)
    assert "red" in await page.text("#found .headline")
    assert (await page.text("#progress")).startswith("tiny: red, ")
    assert "red" in await page.evaluate("document.getElementById('shown').getAttribute('aria-label')")
    assert await page.evaluate("document.querySelectorAll('#timing .stages span').length") >= 3
    assert await page.nameless() == []


async def ask_first(page: Page, model: str) -> None:
    """Before there is a picture."""
    await page.evaluate(f"document.getElementById('model').value = {json.dumps(model)}")


async def test_the_key_is_in_the_pages_memory_alone_and_nothing_goes_elsewhere(
    stack: Stack, page: Page, red: Path
) -> None:
    await enter(page, stack.api_key)
    await pick(page, red)
    kept = "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href, document.body.outerHTML])"
    assert stack.api_key not in await page.evaluate(kept)
    assert await page.evaluate("document.getElementById('key').value + document.cookie") == ""
    own = f"http://{stack.target}/"
    assert [url for _, url in page.requests if not url.startswith((own, "data:", "blob:"))] == []
    await page.open(own)
    assert await page.evaluate("document.getElementById('console').hidden")


async def test_boxes_and_masks_are_drawn_without_another_upload(stack: Stack, page: Page, tmp_path: Path) -> None:
    white = tmp_path / "white.jpg"
    white.write_bytes(solid("white"))
    await enter(page, stack.api_key)
    await ask_first(page, "tiny-detector")
    await pick(page, white)
    assert await page.text("#found .headline") == "4 objects"
    middle, corner = await pixels(page, (0.25, 0.25), (0.5, 0.25))
    assert min(middle) > 240
    assert min(corner) < 200, "a box's edge"
    await ask(page, "tiny-segmenter")
    assert "grey" in await page.text("#found .headline")
    (masked,) = await pixels(page, (0.25, 0.25))
    assert min(masked) < 240, "the mask's colour lies over the picture"
    assert [method for method, _ in page.requests].count("PUT") == 1


async def pixels(page: Page, *places: tuple[float, float]) -> list[list[int]]:
    """Red, green and blue of the answer's canvas, at places in [0, 1]."""
    of_place = (
        "(([x, y]) => { const c = document.getElementById('shown');"
        "return [...c.getContext('2d').getImageData(x * (c.width - 1), y * (c.height - 1), 1, 1).data].slice(0, 3) })"
    )
    return [await page.evaluate(f"{of_place}({json.dumps(place)})") for place in places]


async def test_a_picture_that_is_none_is_refused_in_words(stack: Stack, page: Page, tmp_path: Path) -> None:
    file = tmp_path / "text.jpg"
    file.write_text("no picture")
    await enter(page, stack.api_key)
    await page.press("Space")
    await page.choose(file)
    told = await page.until("document.getElementById('trial-trouble').textContent")
    assert "picture" in told
    page.complaints.clear()  # the browser names each status over 399


async def test_the_lines_repeat_the_call(stack: Stack, page: Page, red: Path) -> None:
    await enter(page, stack.api_key)
    await ask_first(page, "tiny")
    await pick(page, red)
    read = "[...document.querySelectorAll('#commands code')].map((node) => node.textContent)"
    curl, python, grpcurl = await page.evaluate(read)
    assert stack.api_key not in curl + python + grpcurl
    known = {**os.environ, "KEY": stack.api_key}
    assert '"red"' in await run("sh", "-c", curl, env=known)
    assert "red" in await run(sys.executable, "-c", python, env=known)
    words = await run("sh", "-c", grpcurl.replace("grpcurl", "printf '%s\\n'", 1), env=known)
    assert json.loads(words.splitlines()[6])["api_key"] == stack.api_key
    quoted = f"import('/console/commands.js').then(({{quoted}}) => quoted({json.dumps(HOSTILE)}))"
    assert await run("sh", "-c", f"printf %s {await page.evaluate(quoted)}", env=known) == HOSTILE


async def test_a_token_will_do_in_the_place_of_a_key(stack: Stack, page: Page, red: Path) -> None:
    """Until it ends: of that the page is told by the router."""
    token = ISSUER.token(sub="local", models=["tiny"])
    await page.type(token)
    await page.press("Enter")
    await page.until("!document.getElementById('console').hidden")
    assert await page.evaluate("[...document.getElementById('model').options].map(({value}) => value)") == ["tiny"]
    await pick(page, red)
    read = "[...document.querySelectorAll('#commands code')].map((node) => node.textContent)"
    curl, python, grpcurl = await page.evaluate(read)
    known = {**os.environ, "TOKEN": token}
    assert '"red"' in await run("sh", "-c", curl, env=known)
    assert "red" in await run(sys.executable, "-c", python, env=known)
    words = await run("sh", "-c", grpcurl.replace("grpcurl", "printf '%s\\n'", 1), env=known)
    assert words.splitlines()[2] == f"authorization: Bearer {token}"
    assert "api_key" not in json.loads(words.splitlines()[6])
    await page.evaluate("document.getElementById('leave').click()")
    await page.evaluate(f"document.getElementById('key').value = {json.dumps(ISSUER.token(exp=1))}, 1")
    await page.press("Enter")
    trouble = await page.until("document.getElementById('key-trouble').textContent")
    assert trouble == "The token is refused: Jwt is expired."
    page.complaints.clear()  # a 401 is an error to the browser


async def run(*command: str, env: dict[str, str]) -> str:
    done = await asyncio.to_thread(
        subprocess.run, command, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


async def test_models_and_parts_are_told_live(stack: Stack, page: Page) -> None:
    await enter(page, stack.api_key)
    await page.until("document.querySelectorAll('#part-rows .state-good').length >= 4")
    async with load(stack, "tiny", solid("blue")):
        told = await page.until(f"({LIVE})('tiny')")
    assert told[:5] == ["tiny", "default", "1", "1 of 1", "0"]
    assert float(told[5].replace(",", "")) > 0
    for name in ("worker-default-1", "store"):
        process = stack.part(name).pid
        assert process
        os.kill(process, signal.SIGSTOP)
        try:
            await page.until(f"document.getElementById('health').textContent.includes('{name} is silent')")
        finally:
            os.kill(process, signal.SIGCONT)
        await page.until("document.getElementById('health').textContent.startsWith('all ')")


@asynccontextmanager
async def load(stack: Stack, model: str, picture: bytes | Path) -> AsyncGenerator[None]:
    """Meanwhile ``model`` is asked by a few callers."""
    stop = asyncio.Event()

    async def call(caller: AsyncClient) -> None:
        uuid = await caller.upload(picture)
        while not stop.is_set():
            await caller.classify(uuid, model)

    async with client(stack) as caller, asyncio.TaskGroup() as callers:
        for _ in range(4):
            callers.create_task(call(caller))
        try:
            yield
        finally:
            stop.set()


async def test_a_failed_request_leads_to_its_explanation(stack: Stack, page: Page) -> None:
    async with client(stack) as caller:
        with pytest.raises(NotFound):
            await caller.classify(MISSING, "tiny")
    await enter(page, stack.api_key)
    link = f"document.querySelector('#failed-rows a[href$=\"{MISSING}\"]')"
    await page.until(f"{link} && ({link}.focus(), 1)")
    await page.press("Enter")
    told = await page.until("(document.querySelector('#explanation .pass') ?? {}).innerText")
    assert "NOT_FOUND" in told
    assert f"no image {MISSING}" in told
    assert await page.evaluate(FOCUSED) == "explanation-title"
    refused = await page.evaluate("document.getElementById('refusal-rows').innerText")
    assert "NOT_FOUND" in refused
    # The link is one for later, too: the key alone is missing then.
    await page.open("about:blank")
    await page.open(f"http://{stack.target}/#request={MISSING}")
    await enter(page, stack.api_key)
    await page.until("document.querySelector('#explanation .pass')")


async def test_another_owners_requests_are_nobodys_business(stack: Stack, page: Page) -> None:
    bob = await asyncio.to_thread(api_keys.create, stack.home.keys, "bob", models=["tiny"])
    async with client(stack, bob.key) as caller:
        async with asyncio.timeout(60):
            while True:  # until the router knows the key
                try:
                    uuid = await caller.upload(solid("green"))
                    break
                except Exception:
                    await asyncio.sleep(0.05)
        await caller.classify(uuid, "tiny")
    await enter(page, stack.api_key)
    await page.evaluate(f"location.hash = '#request={uuid}', 1")
    await page.until("document.querySelector('#explanation-body .empty')")
    assert uuid not in await page.evaluate("document.body.outerHTML.replace(/Request [^<]*/g, '')")
    await page.open("about:blank")
    await page.open(f"http://{stack.target}/")
    await enter(page, bob.key)
    await page.until(f"document.querySelector('#slow-rows a[href$=\"{uuid}\"]')")
    names = "[...document.querySelectorAll('#store-rows th')].map((cell) => cell.textContent)"
    assert await page.evaluate(names) == ["tiny"], "models that a key may not call are not told of"
    # A key that is revoked meanwhile ends all that.
    await asyncio.to_thread(api_keys.revoke, stack.home.keys, bob.id)
    assert await page.until("document.getElementById('key-trouble').textContent") == "The key was revoked."
    assert await page.evaluate("document.getElementById('console').hidden")
    page.complaints.clear()  # a 401 is an error to the browser


async def test_a_wrong_key_shows_nothing_and_is_counted(stack: Stack, page: Page) -> None:
    await page.type("nobody-has-this-key")
    await page.press("Enter")
    assert "unknown" in await page.until("document.getElementById('key-trouble').textContent")
    assert await page.evaluate("document.getElementById('console').hidden")
    page.complaints.clear()  # likewise
    await page.evaluate("Object.assign(document.getElementById('key'), {value: ''}).focus()")
    await enter(page, stack.api_key)
    await page.until("document.getElementById('refusal-rows').textContent.includes('missing, unknown or revoked')")


async def test_what_the_store_has_and_no_worker_can_serve_is_told_with_the_reason(
    stack: Stack, page: Page, tmp_path: Path
) -> None:
    made = await asyncio.to_thread(add_tiny_classifier, tmp_path, "broken")
    made.path.write_bytes(b"no model")
    shutil.copytree(tmp_path / "broken", stack.home.models / "broken")
    await enter(page, stack.api_key)
    row = "[...document.querySelectorAll('#store-rows tr')].find((row) => row.cells[0].textContent === 'broken')"
    told = f"[...(({row}) ?? {{cells: []}}).cells].map((cell) => cell.textContent)"
    _, state, why = await page.until(f"((cells) => cells[1] === 'refused' && cells)({told})")
    assert state == "refused"
    assert "model.onnx" in why


async def test_a_router_that_is_away_is_told_and_found_again(stack: Stack, page: Page) -> None:
    await enter(page, stack.api_key)
    await page.offline(gone=True)
    told = await page.until(
        "!document.getElementById('trouble').hidden && document.getElementById('trouble').textContent"
    )
    assert "The router doesn't answer" in told
    await page.offline(gone=False)
    await page.until("document.getElementById('trouble').hidden")
    page.complaints.clear()  # of the connection that was refused


async def test_nothing_is_executed_from_names_and_reasons(stack: Stack, page: Page, red: Path) -> None:
    def hostile(told: dict[str, Any]) -> dict[str, Any]:
        model = told["models"][-1]
        told["models"].append({**model, "name": HOSTILE, "pool": HOSTILE, "task": HOSTILE, "reasons": [HOSTILE]})
        told["parts"].append({**told["parts"][-1], "name": HOSTILE, "state": HOSTILE, "reason": HOSTILE})
        told["refused"][HOSTILE] = 7
        glance = {"image_uuid": HOSTILE, "model": HOSTILE, "code": HOSTILE, "message": HOSTILE, "seconds_ago": 1}
        told["requests"]["failed"] = told["requests"]["slow"] = [{**glance, "total_seconds": 1, "key_id": ""}]
        return {**told, "owner": HOSTILE}

    await page.alter("/v1/status", hostile)
    await enter(page, stack.api_key)
    await pick(page, red)
    for rows in ("model-rows", "part-rows", "store-rows", "failed-rows", "slow-rows", "refusal-rows", "owner", "model"):
        assert HOSTILE in await page.evaluate(f"document.getElementById('{rows}').textContent"), rows
    assert HOSTILE.replace("/", "") in await page.evaluate(
        "document.getElementById('shown').getAttribute('aria-label')"
    )
    assert await page.evaluate("typeof window.taken") == "undefined"
    assert await page.evaluate("document.querySelectorAll('main img, main script, main iframe').length") == 0
    await page.screen(*PHONE, mobile=True)
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], "long names don't widen the page"


async def test_rates_and_quantiles_survive_restarts_and_silence(page: Page) -> None:
    figures = "(n) => ({answered: {OK: n}, batched: n, batches: n / 2, latency: [[0.1, n / 2], [0.2, n], [-1, n]]})"
    told = await page.evaluate(
        f"""import('/console/rates.js').then(({{History, quantile}}) => {{
          const figures = {figures};
          const history = new History();
          const samples = [{{b: figures(10)}}, {{b: figures(30)}}, {{}}, {{b: figures(4), late: figures(100)}}];
          samples.forEach((batchers, place) => history.add(place, batchers));
          const last = history.over(10);
          return [history.trend(), last.answered, last.batched / last.batches,
            quantile([[0.1, 50], [0.2, 100], [-1, 100]], 0.5), quantile([[0.1, 50], [0.2, 100], [-1, 100]], 0.75),
            quantile([[0.1, 0], [-1, 7]], 0.99), quantile([[0.1, 0], [-1, 0]], 0.5), quantile([], 0.5)];
        }})"""
    )
    # A restart counts from 0; who was silent, or is new, is not counted for that while.
    assert told == [[20, 0, 0], 4, 2, 0.1, pytest.approx(0.15), 0.1, None, None]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_it_fits_a_phone_and_reads_well(stack: Stack, page: Page, *, dark: bool) -> None:
    picture = SAMPLES / "chelsea.jpg"
    await page.screen(*PHONE, dark=dark, mobile=True)
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    await enter(page, stack.api_key)
    await pick(page, picture)
    await page.evaluate("document.getElementById('repeat').open = true")
    await page.evaluate("location.hash = document.querySelector('#timing a').hash, 1")
    await page.until("document.querySelector('#explanation .pass')")
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    texts = ["h1", "#health", "thead th", ".legend li", "#timing a", "#drop-hint", "#commands h3", "#commands code"]
    told = await page.evaluate(CONTRAST % json.dumps(texts))
    assert {selector: ratio for selector, ratio in told if ratio < 4.5} == {}
    for width in (360, 760, 1000, 1280, 1920):
        await page.screen(width, 800, dark=dark)
        assert await page.evaluate(WIDE) == [], width
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(int(value) for value in ground.strip("rgb()").split(",")) < 64) == dark


@pytest.mark.parametrize(
    ("name", "size", "scale", "dark"),
    [("laptop", LAPTOP, 1, False), ("dark", LAPTOP, 1, True), ("phone", PHONE, 2, False)],
)
async def test_pictures_of_it(
    stack: Stack, page: Page, *, name: str, size: tuple[int, int], scale: float, dark: bool
) -> None:
    await page.screen(*size, dark=dark, scale=scale, mobile=name == "phone")
    await enter(page, stack.api_key)
    await page.until("document.getElementById('model').options.length >= 3")
    await pick(page, SAMPLES / "chelsea.jpg")
    if SCREENS:
        async with load(stack, setup.FIRST_MODEL, SAMPLES / "coffee.jpg"):
            await page.until("document.querySelector('svg.trend polyline').points.length > 40")
    await page.evaluate("document.activeElement.blur(), scrollTo(0, 0), 1")
    picture = await page.picture()
    assert picture[8:12] == b"WEBP"
    if SCREENS:
        (Path(SCREENS) / f"console-{name}.webp").write_bytes(picture)
