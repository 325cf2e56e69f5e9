"""CPU microseconds of the router's Envoy a gRPC call: by a key, by a key beside issuers of tokens, and by a token.

python -m benchmarks.performance.router_calls [--rounds 12] [--calls 2000] [--in-flight 64]

Two routers, one without issuers, before servers that answer at once. The three callers take turns in rounds, so that
other work on the machine falls on all of them: look at the ratios within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from benchmarks.common.commits import ROOT
from benchmarks.common.cpu import of_process

if TYPE_CHECKING:
    from collections.abc import Sequence

BASE = "key"
_MICROSECONDS = 1e6


class Way(NamedTuple):
    """How a caller says who it is, and to which router."""

    rig: Any
    """``support.router_rig.Rig``, of the tests."""
    envoy: psutil.Process
    metadata: list[tuple[str, str]]

    async def cost(self, calls: int, in_flight: int) -> float:
        """Envoy's microseconds a call."""
        before = of_process(self.envoy)
        left = iter(range(calls))

        async def caller() -> None:
            for _ in left:
                if isinstance(refused := await self.rig.call(None, metadata=[*self.metadata]), tuple):
                    raise SystemExit(f"a call was refused: {refused}")

        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return (of_process(self.envoy) - before) / calls * _MICROSECONDS


def main() -> None:
    """Prints a line a way: least, median, and the median of its ratios to a key's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=64)
    options = parser.parse_args()
    sys.path.append(str(ROOT / "tests"))  # for the small servers around a router
    costs = asyncio.run(_measure(options.rounds, options.calls, options.in_flight))
    for name, found in costs.items():
        ratios = [one / base for one, base in zip(found, costs[BASE], strict=True)]
        print(f"{name}: least {min(found):.0f}, median {median(found):.0f} us; ratio {median(ratios):.2f}")


async def _measure(rounds: int, calls: int, in_flight: int) -> dict[str, Sequence[float]]:
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            ways = await _ways(stack, Path(folder))
            for way in ways.values():
                await way.cost(calls, in_flight)  # it warms up
            costs: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, way in ways.items():
                    costs[name].append(await way.cost(calls, in_flight))
    return {**costs}


async def _ways(stack: AsyncExitStack, folder: Path) -> dict[str, Way]:
    rigs, tokens = (import_module(f"support.{name}") for name in ("router_rig", "token_issuer"))
    issuer, known = tokens.Issuer(), set(psutil.Process().children())
    (folder / "jwks.json").write_text(issuer.key_set)
    claims = f"audiences: [{tokens.AUDIENCE}], models_claim: models"
    company = f"{{issuer: {issuer.name!r}, jwks_file: {folder}/jwks.json, {claims}}}"
    found = []
    for name, service in (("plain", ""), ("issuers", f"router: {{tokens: {{company: {company}}}}}")):
        (folder / name).mkdir()
        rig = await stack.enter_async_context(rigs.running(folder / name, service=service))
        (envoy,) = (each for each in psutil.Process().children() if each not in known)
        known.add(envoy)
        found.append((rig, envoy, [("x-api-key", rig.alice.key)]))
    plain, beside = found
    by_token = (*beside[:2], [issuer.bearer(models=["yolo"])])
    return {BASE: Way(*plain), "key beside issuers": Way(*beside), "token (RS256)": Way(*by_token)}


if __name__ == "__main__":
    main()
