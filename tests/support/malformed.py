"""Messages that a queue's list may hold and no worker can take, by name; and one that is well formed, to spoil."""

import base64
import json
import zlib
from collections.abc import Callable
from typing import Any

GOOD_ID = "3f1c0b1e-1d3a-4f51-9e55-0d6bb3b8f001"


def good(**headers: Any) -> dict[str, Any]:
    """A message as Celery publishes it."""
    return {
        "body": encoded([["https://host/object"], {"offset": 0}, dict.fromkeys(("callbacks", "errbacks", "chain"))]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": "packetfs.crc32c", "id": GOOD_ID, "shadow": None, "eta": None, "expires": None,
            "group": None, "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": GOOD_ID,
            "argsrepr": "('https://host/object',)", "kwargsrepr": "{'offset': 0}", "origin": "gen1@host", "parent_id": None,
            "ignore_result": False, "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
            **headers,
        },
        "properties": {
            "correlation_id": GOOD_ID, "reply_to": "b9c3", "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "packetfs.local"},
            "priority": 0, "body_encoding": "base64", "delivery_tag": "1f6a3f0e-9f0e-4a0e-8a8e-0d6bb3b8f002",
        },
    }  # fmt: skip


def encoded(body: object) -> str:
    return base64.b64encode(body if isinstance(body, bytes) else json.dumps(body).encode()).decode()


def raw(message: object) -> bytes:
    return json.dumps(message).encode()


_GONE = object()


def spoilt(*path: str, to: Any = _GONE) -> bytes:
    """The good message with what is at ``path`` changed, or taken away."""
    message = good()
    *parents, last = path
    place = message
    for name in parents:
        place = place[name]
    if to is _GONE:
        del place[last]
    else:
        place[last] = to
    return raw(message)


def body(content: object) -> bytes:
    return spoilt("body", to=encoded(content))


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def _compressed(data: bytes) -> bytes:
    message = good(compression="application/x-gzip")
    message["body"] = encoded(data)
    return raw(message)


_SIGNATURE = {
    "task": "packetfs.crc32c",
    "args": [],
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": False,
}

MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "garbage": b"\x00\xff\xfe garbage",
    "bad UTF-8 in JSON": b'{"body": "\xc3\x28"}',
    "not JSON": b"hello",
    "cut off JSON": raw(good())[:-20],
    "two documents": raw(good()) + b"{}",
    "null": b"null",
    "a number": b"42",
    "not a number": b"NaN",
    "a string": b'"packetfs.crc32c"',
    "a list": b"[]",
    "an empty object": b"{}",
    "deep nesting": nested(100_000).encode(),
    "nested under the parser's limit": spoilt("headers", "x", to=json.loads(nested(400))),
    "a huge integer": raw(good()).replace(b'"retries": 0', b'"retries": 1' + b"0" * 5000),
    "a decimal that is none": spoilt("headers", "x", to={"__type__": "decimal", "__value__": "x"}),
    "an unknown type": spoilt("headers", "x", to={"__type__": "module", "__value__": "os"}),
    "an unknown type, spelt otherwise": spoilt("headers", "x", to={"__type__": "module", "__value__": "os"}).replace(
        b"__type__", b"\\u005f_type__"
    ),
    "a type that is a list": spoilt("headers", "x", to={"__type__": [], "__value__": ""}),
    "a date of a number": spoilt("headers", "x", to={"__type__": "datetime", "__value__": 5}),
    "too long": spoilt("headers", "x", to="x" * (1 << 20)),
    "no body": spoilt("body"),
    "a body of null": spoilt("body", to=None),
    "a body of bytes": spoilt("body", to={"__type__": "bytes", "__value__": "W10="}),
    "an empty body": spoilt("body", to=""),
    "a body that is no base64": spoilt("body", to="***"),
    "a body cut off": spoilt("body", to=good()["body"][:-3]),
    "a body that is no UTF-8": body(b"\xff\xff"),
    "a body that is no JSON": body(b"args"),
    "a body of an object": body({"args": []}),
    "a body of two parts": body([[], {}]),
    "a body whose arguments are an object": body([{}, {}, {}]),
    "a body whose keywords are a list": body([[], [], {}]),
    "a body whose options are a list": body([[], {}, []]),
    "a body nested deeply": body(b"[[" + nested(50_000).encode() + b"], {}, {}]"),
    "a body nested under the parser's limit": body(b"[[" + nested(400).encode() + b"], {}, {}]"),
    "a body with a huge integer": body(b"[[1" + b"0" * 5000 + b"], {}, {}]"),
    "a body with an option that overrides the request": body([[], {}, {"delivery_info": 5}]),
    "callbacks that are a string": body([[], {}, {"callbacks": "packetfs.crc32c"}]),
    "a chain of strings": body([[], {}, {"chain": ["packetfs.crc32c"]}]),
    "a chord that is a list": body([[], {}, {"chord": [_SIGNATURE]}]),
    "a chord without a task": body([[], {}, {"chord": {**_SIGNATURE, "task": None}}]),
    "a callback with options of null": body([[], {}, {"callbacks": [{**_SIGNATURE, "options": None}]}]),
    "no content-type": spoilt("content-type"),
    "pickle": spoilt("content-type", to="application/x-python-serialize"),
    "another content-type": spoilt("content-type", to=["application/json"]),
    "no content-encoding": spoilt("content-encoding"),
    "another content-encoding": spoilt("content-encoding", to="rot13"),
    "a content-encoding of a number": spoilt("content-encoding", to=8),
    "a compression nobody knows": spoilt("headers", "compression", to="rle"),
    "a compression that is a list": spoilt("headers", "compression", to=["gzip"]),
    "a compressed body that is none": _compressed(b"[[], {}, {}]"),
    "a compressed body cut off": _compressed(zlib.compress(b"[[], {}, {}]")[:-6]),
    "a compressed bomb": _compressed(zlib.compress(b"[" + b" " * (64 << 20) + b"[], {}, {}]")),
    "no headers": spoilt("headers"),
    "headers of null": spoilt("headers", to=None),
    "headers of a list": spoilt("headers", to=[]),
    "no id": spoilt("headers", "id"),
    "an id of null": spoilt("headers", "id", to=None),
    "an id of a number": spoilt("headers", "id", to=7),
    "an id of a list": spoilt("headers", "id", to=["a"]),
    "an empty id": spoilt("headers", "id", to=""),
    "a long id": spoilt("headers", "id", to="x" * 129),
    "an id that is no Unicode": spoilt("headers", "id", to="\ud800"),
    "no task": spoilt("headers", "task"),
    "a task of null": spoilt("headers", "task", to=None),
    "a task of a list": spoilt("headers", "task", to=["packetfs.crc32c"]),
    "an eta of words": spoilt("headers", "eta", to="tomorrow"),
    "an eta of a number": spoilt("headers", "eta", to=1_700_000_000),
    "an eta of nothing": spoilt("headers", "eta", to=""),
    "an eta before time": spoilt("headers", "eta", to="0001-01-01T00:00:00+14:00"),
    "an eta after time": spoilt("headers", "eta", to="9999-12-31T23:59:59-14:00"),
    "an expiry of words": spoilt("headers", "expires", to="never"),
    "an expiry of an object": spoilt("headers", "expires", to={}),
    "retries of a string": spoilt("headers", "retries", to="3"),
    "retries below 0": spoilt("headers", "retries", to=-1),
    "retries of true": spoilt("headers", "retries", to=True),
    "retries not a number": raw(good()).replace(b'"retries": 0', b'"retries": NaN'),
    "time limits of a number": spoilt("headers", "timelimit", to=5),
    "three time limits": spoilt("headers", "timelimit", to=[1, 2, 3]),
    "time limits of strings": spoilt("headers", "timelimit", to=["1", "2"]),
    "time limits below 0": spoilt("headers", "timelimit", to=[-1, None]),
    "time limits not a number": raw(good()).replace(b"[null, null]", b"[NaN, Infinity]"),
    "a shadow of a list": spoilt("headers", "shadow", to=[]),
    "a root of a number": spoilt("headers", "root_id", to=1),
    "a group of an object": spoilt("headers", "group", to={}),
    "a group index of a string": spoilt("headers", "group_index", to="first"),
    "stamped headers of objects": spoilt("headers", "stamped_headers", to=[{}]),
    "stamps of a list": spoilt("headers", "stamps", to=[]),
    "a representation of an object": spoilt("headers", "argsrepr", to={}),
    "no properties": spoilt("properties"),
    "properties of null": spoilt("properties", to=None),
    "properties of a list": spoilt("properties", to=[1]),
    "no delivery tag": spoilt("properties", "delivery_tag"),
    "a delivery tag of a list": spoilt("properties", "delivery_tag", to=[]),
    "no delivery info": spoilt("properties", "delivery_info"),
    "delivery info of null": spoilt("properties", "delivery_info", to=None),
    "no exchange": spoilt("properties", "delivery_info", "exchange"),
    "an exchange of an object": spoilt("properties", "delivery_info", "exchange", to={}),
    "no routing key": spoilt("properties", "delivery_info", "routing_key"),
    "an empty routing key": spoilt("properties", "delivery_info", "routing_key", to=""),
    "a consumer tag of a list": spoilt("properties", "delivery_info", "consumer_tag", to=[]),
    "another body encoding": spoilt("properties", "body_encoding", to="rot13"),
    "a body encoding of a list": spoilt("properties", "body_encoding", to=[]),
    "a priority of a string": spoilt("properties", "priority", to="high"),
    "a correlation of an object": spoilt("properties", "correlation_id", to={}),
    "Celery's protocol 1": raw({**good(), "headers": {}, "body": encoded({"task": "packetfs.add", "id": "a", "args": []})}),
    "a job of the intake": raw({"job_id": "j1", "program": {"data_url": "https://host/object", "op": "crc32c"}}),
}  # fmt: skip

WELL_FORMED: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": good,
    "an eta": lambda: good(eta="2026-11-01T10:00:00.123456+00:00"),
    "an eta in Z": lambda: good(eta="2026-11-01T10:00:00Z"),
    "an eta without a zone": lambda: good(eta="2026-11-01T10:00:00"),
    "time limits": lambda: good(timelimit=[60, 30.5]),
    "a header of one's own": lambda: good(packetfs_submitted_at=1.5, anything={"deep": [1, [2]]}),
    "no representation": lambda: good(argsrepr=None, kwargsrepr=None),
    "a body in plain": lambda: {
        **good(),
        "body": "[[], {}, null]",
        "properties": {**good()["properties"], "body_encoding": None},
    },
    "a compressed body": lambda: {
        **good(compression="application/x-gzip"),
        "body": encoded(zlib.compress(b"[[1], {}, {}]")),
    },
    "a number that is none": lambda: {**good(), "body": encoded(b"[[NaN], {}, {}]")},
    "a stamp of the ledger": lambda: {**good(), "packetfs_published": 1_700_000_000.5},
}
