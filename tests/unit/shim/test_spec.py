"""The edit of a spec: what it adds, what it keeps, and that it can be repeated and undone."""

import copy
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrrdma_runtime.base.errors import SpecError
from migrrdma_runtime.shim import spec

_ADDITIONS = spec.Additions(
    guest_dir="/var/lib/guest",
    version="abc",
    socket_dir="/run/migrrdma/agent",
    hooks_dir="/libexec/hooks",
    record_dir="/run/migrrdma/containers/c1",
    criu_config="/bundle/migrrdma-criu.conf",
)
_OTHER_VERSION = spec.Additions(
    guest_dir="/elsewhere",
    version="def",
    socket_dir="/run/x/agent",
    hooks_dir="/opt/hooks",
    record_dir="/run/x/containers/c1",
    criu_config="/b2/migrrdma-criu.conf",
)
_LIBRARY = "/dev/migrrdma/guest/abc/libmigrrdma.so"

_STRINGS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
_HOOKS: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["path"],
        "properties": {
            "path": {"type": "string", "pattern": "^/"},
            "args": _STRINGS,
            "env": _STRINGS,
            "timeout": {"type": "integer", "minimum": 1},
        },
    },
}
_OCI: dict[str, Any] = {
    "type": "object",
    "required": ["ociVersion"],
    "properties": {
        "process": {"type": "object", "properties": {"env": _STRINGS, "args": _STRINGS}},
        "mounts": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["destination"],
                "properties": {
                    "destination": {"type": "string", "pattern": "^/"},
                    "source": {"type": "string"},
                    "type": {"type": "string"},
                    "options": _STRINGS,
                },
            },
        },
        "hooks": {"type": "object", "additionalProperties": _HOOKS},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
"""What the OCI runtime specification says of the members that the edit touches."""


def _container(**members: Any) -> spec.Spec:
    return {"ociVersion": "1.0.2", "process": {"args": ["sh"], "env": ["A=1"]}, **members}


def _edited(original: spec.Spec, additions: spec.Additions = _ADDITIONS) -> spec.Spec:
    result = copy.deepcopy(original)
    spec.edit(result, additions)
    return result


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, False),
        ({"linux": {"devices": [{"path": "/dev/infiniband/uverbs0", "type": "c"}]}}, True),
        ({"linux": {"devices": [{"path": "/dev/fuse"}, {"path": "/dev/infiniband/rdma_cm"}]}}, True),
        ({"linux": {"devices": [{"path": "/dev/infinibandit"}]}}, False),
        ({"linux": {"devices": None}, "mounts": None, "annotations": None}, False),
        ({"mounts": [{"destination": "/x", "source": "/dev/infiniband"}]}, True),
        ({"mounts": [{"destination": "/x", "source": "/dev/infiniband/uverbs1"}]}, True),
        ({"mounts": [{"destination": "/dev/infiniband", "type": "tmpfs", "source": "tmpfs"}]}, False),
        ({"linux": {"devices": [{"path": "/dev//infiniband/./uverbs0"}]}}, True),
        ({"linux": {"devices": [{"path": "/dev/fuse/../infiniband/uverbs0"}]}}, True),
        ({"linux": {"devices": [{"path": "/dev/infiniband/../fuse"}]}}, False),
        ({"mounts": [{"destination": "/x", "source": "/dev//infiniband/", "type": "bind"}]}, True),
        # The source may be a link to the devices.
        ({"mounts": [{"destination": "/dev/infiniband", "source": "/opt/rdma", "type": "bind"}]}, True),
        (
            {
                "mounts": [
                    {"destination": "//dev/infiniband/uverbs0", "source": "/opt/0", "options": ["rbind"]}
                ]
            },
            True,
        ),
        ({"mounts": [{"destination": "/opt/infiniband", "source": "/opt/rdma", "type": "bind"}]}, False),
        ({"annotations": {"org.migrrdma.enable": "true"}}, True),
        (
            {
                "annotations": {"org.migrrdma.enable": "false"},
                "linux": {"devices": [{"path": "/dev/infiniband/uverbs0"}]},
            },
            False,
        ),
    ],
)
def test_a_container_holds_rdma_by_device_mount_or_annotation(
    members: dict[str, Any], expected: bool
) -> None:
    assert spec.holds_rdma(_container(**members)) is expected


@pytest.mark.parametrize("value", ["yes", "", "True", True, 1])
def test_an_annotation_that_is_neither_true_nor_false_is_refused(value: object) -> None:
    with pytest.raises(SpecError, match=f'enable must be "true" or "false", not {value!r}'):
        spec.holds_rdma(_container(annotations={"org.migrrdma.enable": value}))


def test_the_edit_adds_mount_library_hooks_and_annotations() -> None:
    assert _edited(_container()) == _container(
        process={"args": ["sh"], "env": ["A=1", f"LD_PRELOAD={_LIBRARY}"]},
        mounts=[
            {
                "destination": "/dev/migrrdma/guest",
                "type": "bind",
                "source": "/var/lib/guest",
                "options": ["bind", "ro", "nosuid", "nodev", "rprivate"],
            },
            {
                "destination": "/dev/migrrdma/agent",
                "type": "bind",
                "source": "/run/migrrdma/agent",
                "options": ["bind", "ro", "nosuid", "nodev", "rprivate"],
            },
        ],
        hooks={
            "createRuntime": [
                {
                    "path": "/libexec/hooks/record-container",
                    "args": ["migrrdma-record-container", "/run/migrrdma/containers/c1"],
                    "timeout": 30,
                }
            ],
            "poststop": [
                {
                    "path": "/libexec/hooks/forget-container",
                    "args": ["migrrdma-forget-container", "/run/migrrdma/containers/c1"],
                    "timeout": 30,
                }
            ],
        },
        annotations={
            "org.migrrdma.guest": "abc",
            "org.criu.config": "/bundle/migrrdma-criu.conf",
        },
    )


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ([], [f"LD_PRELOAD={_LIBRARY}"]),
        (["LD_PRELOAD="], [f"LD_PRELOAD={_LIBRARY}:"]),
        (["B=2", "LD_PRELOAD=/a.so /b.so", "C=3"], ["B=2", f"LD_PRELOAD={_LIBRARY}:/a.so /b.so", "C=3"]),
        (["LD_PRELOAD=/dev/migrrdma/guest/old/libmigrrdma.so:/a.so"], [f"LD_PRELOAD={_LIBRARY}:/a.so"]),
        (["LD_PRELOAD=/a.so", "LD_PRELOAD=/b.so"], [f"LD_PRELOAD={_LIBRARY}:{x}.so" for x in ("/a", "/b")]),
    ],
)
def test_the_library_comes_before_what_the_user_preloads(env: list[str], expected: list[str]) -> None:
    assert spec.preload(env, "abc") == expected


@pytest.mark.parametrize("value", [None, "", "/etc/criu/mine.conf"])
def test_the_users_criu_configuration_is_remembered_through_every_edit(value: str | None) -> None:
    original = _container(annotations={} if value is None else {"org.criu.config": value})
    once = _edited(original)
    assert once["annotations"]["org.criu.config"] == _ADDITIONS.criu_config
    assert spec.user_criu_config(original) == spec.user_criu_config(once) == value
    assert spec.user_criu_config(_edited(once, _OTHER_VERSION)) == value


def test_hooks_of_others_keep_their_places() -> None:
    theirs = {"path": "/bin/theirs", "args": ["theirs"]}
    hooks = {"prestart": [theirs], "createRuntime": [theirs, theirs], "poststop": [theirs]}
    edited = _edited(_container(hooks=hooks))["hooks"]
    assert edited["prestart"] == [theirs]
    assert edited["createRuntime"][:2] == [theirs, theirs]
    assert [len(stage) for stage in edited.values()] == [1, 3, 2]


@pytest.mark.parametrize(
    "destination",
    [
        "/dev/migrrdma/guest",
        "/dev/migrrdma/agent/",
        "/dev//migrrdma/guest",
        "/dev/shm/../migrrdma/guest",
        "/dev/migrrdma",  # in it, the low-level runtime would make mount points for ours: in the user's files
        "/dev/migrrdma/guest/mine",  # it would be hidden
    ],
)
def test_a_mount_of_the_users_in_our_place_is_refused(destination: str) -> None:
    mount = {"destination": destination, "source": "/mine", "type": "bind"}
    with pytest.raises(SpecError, match=f"the container has a mount of its own on {destination}, which"):
        _edited(_container(mounts=[mount]))


@pytest.mark.parametrize("destination", ["/dev", "/dev/migrrdma-of-mine", "/migrrdma"])
def test_a_mount_beside_ours_is_the_users_own(destination: str) -> None:
    mount = {"destination": destination, "source": "/mine", "type": "bind"}
    assert _edited(_container(mounts=[mount]))["mounts"][0] == mount


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"process": []}, "process must be an object, not \\[\\]"),
        ({"process": {"env": "A=1"}}, "env must be a list, not 'A=1'"),
        ({"process": {"env": [1]}}, "process.env must be a list of strings"),
        ({"mounts": {}}, "mounts must be a list, not {}"),
        ({"hooks": []}, "hooks must be an object"),
        ({"hooks": {"poststop": {}}}, "poststop must be a list"),
        ({"annotations": {"org.criu.config": 1}}, "org.criu.config must be a string, not 1"),
    ],
)
def test_a_member_of_the_wrong_kind_is_named(members: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        _edited(_container(**members))


@pytest.mark.parametrize(
    ("linux", "own"),
    [
        ({"namespaces": [{"type": "pid"}, {"type": "network"}]}, True),
        ({"namespaces": [{"type": "network", "path": "/proc/7/ns/net"}]}, True),
        ({"namespaces": [{"type": "pid"}]}, False),
        ({}, False),
    ],
)
def test_a_container_has_its_own_network_if_it_has_the_namespace(linux: dict[str, Any], own: bool) -> None:
    assert spec.has_own_network(_container(linux=linux)) is own


_PRELOADS = st.sampled_from(["LD_PRELOAD=/a.so", "LD_PRELOAD=/a.so:/b.so", "LD_PRELOAD="])
_HOOK = st.fixed_dictionaries({"path": st.just("/bin/x")}, optional={"args": st.lists(st.text(), max_size=2)})
_HOOK_LIST = st.lists(_HOOK, min_size=1, max_size=2)
_SPECS = st.fixed_dictionaries(
    {
        "ociVersion": st.just("1.0.2"),
        "process": st.fixed_dictionaries(
            {}, optional={"env": st.lists(st.text() | _PRELOADS), "args": st.lists(st.text())}
        ),
    },
    optional={
        "mounts": st.lists(st.fixed_dictionaries({"destination": st.just("/x")}), min_size=1, max_size=3),
        "hooks": st.dictionaries(
            st.sampled_from(["prestart", "createRuntime", "poststop"]), _HOOK_LIST, min_size=1
        ),
        "annotations": st.dictionaries(
            st.sampled_from(["org.criu.config", "a", "org.migrrdma.enable"]), st.text(), min_size=1
        ),
    },
)


@given(_SPECS)
def test_an_edited_spec_is_a_valid_one(original: spec.Spec) -> None:
    jsonschema.validate(original, _OCI)
    jsonschema.validate(_edited(original), _OCI)


@given(_SPECS)
def test_editing_twice_is_editing_once(original: spec.Spec) -> None:
    once = _edited(original)
    assert _edited(once) == once
    assert _edited(_edited(original, _OTHER_VERSION)) == once


def test_hooks_of_a_spec_that_was_copied_without_the_annotation_come_once() -> None:
    copied = _edited({"process": {"args": ["sh"]}})
    hooks = copy.deepcopy(copied["hooks"])
    del copied["annotations"], copied["mounts"]
    assert _edited(copied)["hooks"] == hooks


@given(_SPECS)
def test_stripping_leaves_what_was_there(original: spec.Spec) -> None:
    stripped = _edited(original)
    spec.strip(stripped)
    # To runc an empty environment is the same as none.
    original["process"].setdefault("env", [])
    assert stripped == original


@given(_SPECS)
def test_a_spec_that_was_not_edited_is_not_stripped(original: spec.Spec) -> None:
    stripped = copy.deepcopy(original)
    spec.strip(stripped)
    assert stripped == original
