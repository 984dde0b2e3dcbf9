"""The compiled schemas judge as jsonschema does, name the place that is wrong, and cost little beside JSON itself."""

from __future__ import annotations

import json
from typing import Any

import calls
import hypothesis
import hypothesis.strategies as st
import jsonschema
import pytest
from conversation import Conversation

from migrrdma_runtime.base import strict_json
from migrrdma_runtime.base.errors import MessageError
from migrrdma_runtime.wire import agent_messages, compiled_schema
from migrrdma_runtime.wire.agent_messages import EXCHANGES, GID, QPN, list_of, record
from migrrdma_runtime.wire.compiled_schema import Schema
from migrrdma_runtime.wire.manifest_schema import MANIFEST

_GID = "0000:0000:0000:0000:0000:ffff:c000:0201"

SCHEMAS: list[Schema] = [
    MANIFEST,
    *(one for pair in EXCHANGES.values() for one in (pair.request, pair.reply)),
]


def fitting(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that fit a schema."""
    if "const" in schema:
        return st.just(schema["const"])
    if "anyOf" in schema:
        return st.one_of([fitting(one) for one in schema["anyOf"]])
    match schema.get("type"):
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True)
        case "string":
            return st.text(min_size=schema.get("minLength", 0), max_size=min(8, schema.get("maxLength", 8)))
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "number":
            return st.floats(
                schema.get("minimum"), schema.get("maximum"), allow_nan=False, allow_infinity=False
            )
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            return st.lists(fitting(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
        case "object" if "properties" in schema:
            return st.fixed_dictionaries({name: fitting(one) for name, one in schema["properties"].items()})
        case "object":
            names = fitting(schema.get("propertyNames", {"type": "string"}))
            return st.dictionaries(names, fitting(schema.get("additionalProperties", {})), max_size=3)
    return st.integers(0, 3)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every part of a value: what holds it, and its index or name there."""
    parts: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for name in list(value) if isinstance(value, dict) else range(len(value)):
            parts += [(value, name), *places(value[name])]
    return parts


@hypothesis.given(st.data())
def test_a_compiled_schema_judges_as_jsonschema_does(data: st.DataObject) -> None:
    schema = data.draw(st.sampled_from(SCHEMAS))
    value = data.draw(fitting(schema))
    if data.draw(st.booleans()) and places(value):
        held, name = data.draw(st.sampled_from(places(value)))
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "replace":
            held[name] = data.draw(ANY_JSON)
        elif change == "remove":
            del held[name]
        elif isinstance(held, dict):
            held[data.draw(st.text(max_size=4))] = data.draw(ANY_JSON)
    misfit = compiled_schema.misfit(value, schema)
    problems = list(jsonschema.Draft202012Validator(schema).iter_errors(value))
    assert (misfit is not None) == bool(problems), f"{misfit} where jsonschema finds {problems}"
    if misfit is not None and misfit.place:
        top = {problem.absolute_path[0] if problem.absolute_path else misfit.place[0] for problem in problems}
        assert misfit.place[0] in top


_CONNECTION = {"gid": _GID, "qpn": 1}
_SCHEMA = record(connections=list_of(record(gid=GID, qpn=QPN), least=1))


@pytest.mark.parametrize(
    ("connection", "reason"),
    [
        ({"gid": _GID}, "connections/2: 'qpn' is missing"),
        ({**_CONNECTION, "x": 1}, "connections/2: 'x' is not known"),
        ({**_CONNECTION, "qpn": 1 << 24}, "connections/2/qpn: 16777216 is not between 0 and 16777215"),
        ({**_CONNECTION, "qpn": "1"}, "connections/2/qpn: '1' is not of type 'integer'"),
        ({**_CONNECTION, "qpn": True}, "connections/2/qpn: True is not of type 'integer'"),
        ({**_CONNECTION, "qpn": 1.0}, "connections/2/qpn: 1.0 is not of type 'integer'"),
        ({**_CONNECTION, "gid": _GID + "\n"}, "connections/2/gid: .* is not .* that fit"),
        ([], r"connections/2: \[\] is not of type 'object'"),
    ],
    ids=["missing", "unknown", "large", "text", "flag", "float", "line feed", "list"],
)
def test_a_refusal_names_the_place(connection: Any, reason: str) -> None:
    message = {"connections": [_CONNECTION, _CONNECTION, connection, _CONNECTION]}
    with pytest.raises(MessageError, match=f"suspend: {reason}"):
        agent_messages.decode(json.dumps(message).encode(), _SCHEMA, "suspend")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"version": NaN}', "NaN is no number of JSON"),
        (b'{"version": 1, "name": "\\ud800"}', "not JSON .*surrogates not allowed"),
        (b'{"version": 1, "name": "\xed\xa0\x80"}', "not JSON .*can't decode"),
        (b"[" * 1000, "not JSON .*nested too deeply"),
        (b'{"version": 1' + b" " * 2000 + b"}", "2014 bytes, more than the 10[0-9]+ that are allowed"),
    ],
    ids=["not a number", "half a pair", "half a pair as bytes", "deep", "long"],
)
def test_what_other_readers_would_not_take_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        agent_messages.decode(data, EXCHANGES["hello"].request, "hello")


def test_what_would_fill_the_memory_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"[" + b"[]," * (1 << 18) + b"0]"
    monkeypatch.setattr(strict_json, "parse", None)
    with pytest.raises(MessageError, match="more values than such a message has"):
        agent_messages.decode(data, EXCHANGES["suspend"].request, "suspend")


def test_every_message_has_a_length_beyond_which_it_is_not_parsed() -> None:
    endless = {
        name
        for name, exchange in EXCHANGES.items()
        for schema in (exchange.request, exchange.reply)
        if compiled_schema.longest(schema) + 2048 > agent_messages.MAX_BYTES
    }
    assert endless == {"suspend", "prepare", "where"}, (
        "those with a list of all the connections, or of many keys"
    )


def test_a_schema_that_says_more_than_is_understood_is_not_compiled() -> None:
    for schema in ({"type": "string", "format": "ipv4"}, {"type": "string", "pattern": "a"}):
        with pytest.raises(TypeError):
            compiled_schema.misfit("a", schema)


def test_a_migration_of_more_connections_is_checked_by_no_more_calls() -> None:
    """The rest is C's: 2.4 times what the JSON takes; bench/scale/messages.py has it in milliseconds."""
    made = []
    for qps in (2_048, 2_048, 16_384):  # the first compiles the schemas
        talk = Conversation(qps=qps, mrs=6 * qps)
        with calls.counted() as counted:
            talk.all_there_and_back()
        made.append(counted.made)
    assert made[2] - made[1] < (16_384 - 2_048) / 2, (
        "the garbage collector's callbacks, and nothing for each connection"
    )
