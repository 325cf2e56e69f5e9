from __future__ import annotations

import asyncio
import base64
import json
import threading
from typing import TYPE_CHECKING

import pytest

from shoal.client.token import TokenCaller
from shoal.errors import ConfigurationError, DeadlineExceeded, InvalidRequest, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = 60.0


def token(name: str, **claims: object) -> str:
    """Without a signature that anybody could verify."""
    payload = base64.urlsafe_b64encode(json.dumps({"jti": name, **claims}).encode()).decode().rstrip("=")
    return f"e30.{payload}.{name}"


class Issuer:
    """Gives numbered tokens, each for 100 s."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.given = 0
        self.failure: Exception | None = None
        self.lifetime: float | None = 100.0

    def __call__(self) -> str:
        self.given += 1
        if self.failure is not None:
            raise self.failure
        return token(str(self.given), **({} if self.lifetime is None else {"exp": self.now + self.lifetime}))

    def caller(self) -> TokenCaller:
        return TokenCaller(self, lambda: self.now)


async def sent(caller: TokenCaller, *refused: str) -> str:
    """What a call came with that a service answers, which refuses some."""

    async def call(_left: float) -> str:
        ((header, value),) = caller.metadata
        assert (header, value.partition(" ")[0]) == ("authorization", "Bearer")
        name = value.rpartition(".")[2]
        if name in refused:
            raise Unauthenticated("the token is refused: Jwt is expired")
        return name

    return await caller.attempt(call, LONG)


async def settled(caller: TokenCaller) -> None:
    assert caller._renewal is not None
    await caller._renewal


async def test_a_token_is_asked_for_once_while_it_is_good() -> None:
    issuer = Issuer()
    caller = issuer.caller()
    assert await asyncio.gather(*(sent(caller) for _ in range(5))) == ["1"] * 5
    issuer.now += 79
    assert (await sent(caller), issuer.given) == ("1", 1)


async def test_it_is_renewed_in_its_last_fifth_and_no_call_waits() -> None:
    issuer = Issuer()
    caller = issuer.caller()
    await sent(caller)
    issuer.now += 81
    assert await sent(caller) == "1"
    await settled(caller)
    assert (await sent(caller), issuer.given) == ("2", 2)


async def test_calls_wait_once_it_has_ended() -> None:
    issuer = Issuer()
    caller = issuer.caller()
    await sent(caller)
    issuer.now += 101
    assert await asyncio.gather(*(sent(caller) for _ in range(5))) == ["2"] * 5
    assert issuer.given == 2


async def test_a_refused_call_is_sent_once_more_with_a_fresh_one() -> None:
    issuer = Issuer()
    caller = issuer.caller()
    await sent(caller)
    issuer.now += 2
    assert await asyncio.gather(*(sent(caller, "1") for _ in range(5))) == ["2"] * 5
    assert issuer.given == 2


async def test_it_is_asked_for_once_a_second_at_most_whatever_comes() -> None:
    issuer = Issuer()
    issuer.lifetime = -1.0
    caller = issuer.caller()
    for _ in range(5):
        with pytest.raises(Unauthenticated, match="Jwt is expired"):
            await sent(caller, "1")
    assert issuer.given == 1
    issuer.now += 1
    assert await sent(caller, "1") == "2"


async def test_one_without_an_end_is_kept_until_it_is_refused() -> None:
    issuer = Issuer()
    issuer.lifetime = None
    caller = issuer.caller()
    await sent(caller)
    issuer.now += 1e9
    assert await sent(caller) == "1"
    assert await sent(caller, "1") == "2"


async def test_the_one_before_is_good_until_its_end_where_no_new_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    issuer = Issuer()
    caller = issuer.caller()
    await sent(caller)
    issuer.failure = OSError("secret")
    issuer.now += 81
    assert await sent(caller) == "1"
    await settled(caller)
    issuer.now += 1
    assert await sent(caller) == "1"
    issuer.now += 20
    with pytest.raises(Unauthenticated, match="no token: what should give one failed with OSError") as raised:
        await sent(caller)
    assert raised.value.__cause__ is issuer.failure
    assert "secret" not in str(raised.value) + caplog.text
    issuer.failure, issuer.now = None, issuer.now + 1
    assert await sent(caller) == str(issuer.given)


async def test_errors_of_the_tree_pass() -> None:
    issuer = Issuer()
    issuer.failure = Unavailable("the issuer is away")
    with pytest.raises(Unavailable, match="issuer is away"):
        await sent(issuer.caller())


async def test_what_is_refused_for_another_reason_is_not_sent_again() -> None:
    issuer = Issuer()
    tries = []

    async def call(_left: float) -> None:
        tries.append(1)
        raise InvalidRequest("no uuid")

    with pytest.raises(InvalidRequest):
        await issuer.caller().attempt(call, LONG)
    assert (len(tries), issuer.given) == (1, 1)


async def test_a_coroutine_function_will_do() -> None:
    async def give() -> str:
        await asyncio.sleep(0)
        return token("later")

    assert await sent(TokenCaller(give)) == "later"


async def test_a_caller_that_leaves_takes_the_token_from_nobody() -> None:
    going = threading.Event()

    def give() -> str:
        assert going.wait(LONG)
        return token("late")

    caller = TokenCaller(give)
    first, second = (asyncio.create_task(sent(caller)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    going.set()
    assert await second == "late"


async def test_no_token_in_time() -> None:
    never: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def give() -> str:
        return await never

    caller = TokenCaller(give)

    async def call(_left: float) -> None: ...

    with pytest.raises(DeadlineExceeded, match="before a token came"):
        await caller.attempt(call, 0)
    assert caller._renewal
    assert not caller._renewal.done(), "it goes on for others"
    await caller.close()
    assert caller._renewal.cancelled()


async def test_a_fixed_one_says_what_to_do_once_it_has_ended() -> None:
    caller = TokenCaller(token("fixed") + "\n")
    assert await sent(caller) == "fixed"
    with pytest.raises(Unauthenticated, match=r"Jwt is expired; a token ends: give the client a function"):
        await sent(caller, "fixed")


@pytest.mark.parametrize("text", ["", " ", "Bearer a.b.c", "a.b\r\nx-client-id: bob", "a.ü.c"])
def test_what_can_be_no_token(text: str) -> None:
    with pytest.raises(ConfigurationError, match="token: expected a JWT alone") as raised:
        TokenCaller(text)
    assert not text.strip() or text not in str(raised.value)


@pytest.mark.parametrize("given", [None, b"a.b.c", 5])
async def test_what_a_function_gives_that_is_none(given: object) -> None:
    def give() -> object:
        return given

    source: Callable[[], str] = give  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match=f"not {type(given).__name__}"):
        await sent(TokenCaller(source))


@pytest.mark.parametrize(
    "payload", ["", "W10", "bm90aGluZw", "eyJleHAiOiAiYSJ9", "eyJleHAiOiAx" + "MDAw" * 200 + "MH0"]
)
async def test_a_token_without_a_readable_end_is_the_services_to_judge(payload: str) -> None:
    assert await sent(TokenCaller(f"e30.{payload}.x")) == "x"
