"""What Envoy allows on one connection: a caller's own, or one between Shoal's parts, which carries everybody's calls.

Envoy's protections against floods count on a connection: resets, refused streams, frames that wait to be sent. Where a
connection is one caller's, they harm nobody else. Between the router and a batcher one connection carries calls of
everybody, so there a protection against one caller would end the others' calls. What one caller may do is limited
before: calls in flight, a key's rate, the queue's length.
https://www.envoyproxy.io/docs/envoy/latest/faq/configuration/flow_control
"""

from __future__ import annotations

from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]
"""A JSON object: Envoy's configuration is protobuf in its JSON form."""

STREAMS = 100_000
"""In flight on one connection, at most; the router's ``max_requests`` and the permits bind before."""
TRUSTED_HEADERS, TRUSTED_HEADERS_BYTES = 200, 32 * 1024
"""What a batcher takes of a call's metadata: what the router lets through, and what it adds."""
_CALLERS_STREAMS = 10_000
"""In flight on one caller's connection; more wait at the caller."""
_FRAMES = 10_000_000
"""Frames that wait to be sent. A call is about five; what waits is bounded by the calls in flight."""
STREAM_WINDOW_BYTES = 128 * 2**10
"""What one side sends on a stream of calls, or on any call, before the other has read it. Envoy keeps as much again of
what waits to be sent on it, and then reads no more of the stream's other side."""
STREAMS_OF_CALLS = 64
"""On one connection to a batcher; more open another."""
_CONNECTION_WINDOW_BYTES = 24 * 2**20
"""The same of a connection: three times what its streams of calls can hold, so that unread ones stop nobody else's."""
HANG: Json = {"interval": "0.5s", "timeout": "1.5s"}
"""``connection_keepalive``: who leaves a ping unanswered for so long is as good as dead. Envoy and grpcio answer
without Python, so a load alone is no hang."""
_NEVER = 2**32 - 1
_RESETS: Json = {"stream_reset_burst": _NEVER, "stream_reset_rate": _NEVER}
"""Else a connection ends after 1,000 calls taken back and 33 a second more (Envoy 1.39 and later can be told). The
other codec, oghttp2, counts none, but loses a call's trailers where its body fills the connection's window
(https://github.com/envoyproxy/envoy/issues/40821)."""
_CALLS_A_TURN = 32
"""Calls that are taken from one connection before the others have their turn."""


def trusted_http2(**fields: object) -> Json:
    """``Http2ProtocolOptions`` of a hop between own parts, at either end."""
    return {
        "max_concurrent_streams": STREAMS,
        "max_outbound_frames": _FRAMES,
        "max_outbound_control_frames": _FRAMES,
        "max_consecutive_inbound_frames_with_empty_payload": _FRAMES,
        "max_inbound_window_update_frames_per_data_frame_sent": _FRAMES,
        "override_stream_error_on_invalid_http_message": True,
        **_RESETS,
        **fields,
    }


def windows() -> Json:
    """Fields of ``Http2ProtocolOptions`` that bound what a peer holds of each stream. Envoy's own bound is 16 MiB."""
    return {
        "initial_stream_window_size": STREAM_WINDOW_BYTES,
        "initial_connection_window_size": _CONNECTION_WINDOW_BYTES,
    }


def public_http2() -> Json:
    """``Http2ProtocolOptions`` of the listener for callers: what a connection costs is bounded, and harms itself alone.

    A ping that stays unanswered ends the connection of somebody who only keeps it.
    """
    return {
        "max_concurrent_streams": _CALLERS_STREAMS,
        "max_outbound_frames": 10 * _CALLERS_STREAMS,
        "max_outbound_control_frames": 2 * _CALLERS_STREAMS,
        "override_stream_error_on_invalid_http_message": True,
        "connection_keepalive": {"interval": "5s", "timeout": "10s"},
        **windows(),
        **_RESETS,
    }


def runtime() -> Json:
    """``layered_runtime`` of an Envoy's bootstrap.

    A call that its caller takes back, as a hedge or a deadline does, costs no more than one that is refused, and is
    counted by the rate limit all the same; so a connection is not ended for how many there are. Taking turns keeps a
    connection with very many calls from delaying the others.
    """
    settings = {
        "overload.premature_reset_total_stream_count": _NEVER,
        "http.max_requests_per_io_cycle": _CALLS_A_TURN,
    }
    return {"layers": [{"name": "shoal", "static_layer": settings}]}
