"""`config.json` from anybody: edited in a way that can be taken back, or refused by name."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from pathlib import Path
from typing import Any

from fuzzing import Fuzzer, changed_text

from migrrdma_runtime.base.errors import SpecError
from migrrdma_runtime.shim import bundle, spec

ADDITIONS = spec.Additions(
    guest_dir="/usr/lib/migrrdma/guest",
    version="0" * 40,
    socket_dir="/run/migrrdma/agent",
    hooks_dir="/usr/lib/migrrdma/hooks",
    record_dir="/run/migrrdma/containers/c1",
    criu_config="/bundle/migrrdma-criu.conf",
)

PLAIN: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {"args": ["sh"], "env": ["PATH=/bin", "LD_PRELOAD=/lib/x.so"], "cwd": "/"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev/infiniband", "type": "bind", "source": "/dev/infiniband", "options": ["rbind"]},
    ],
    "hooks": {"poststop": [{"path": "/bin/true", "args": ["true"]}]},
    "annotations": {"org.criu.config": "/etc/criu/mine.conf", "org.migrrdma.enable": "true"},
    "linux": {
        "devices": [{"path": "/dev/infiniband/uverbs0", "type": "c", "major": 231, "minor": 192}],
        "namespaces": [{"type": "network"}, {"type": "pid"}],
    },
}

EDITED = copy.deepcopy(PLAIN)
spec.edit(EDITED, ADDITIONS)


def test_a_spec_is_edited_and_taken_back_or_refused_by_name(fuzzer: Fuzzer, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    edited = 0

    def one(rng: random.Random) -> None:
        nonlocal edited
        path.write_bytes(changed_text(rng, rng.choice((PLAIN, EDITED))))
        with contextlib.suppress(SpecError):
            bundle.is_plain(str(path))
            value, unsafe = bundle.read(str(path))
            if not isinstance(value, dict) or unsafe is not None:
                return
            spec.holds_rdma(value)
            spec.has_own_network(value)
            spec.edit(value, ADDITIONS)
            again = copy.deepcopy(value)
            spec.edit(again, ADDITIONS)
            assert again == value, "an edit of what was edited changes nothing"
            bundle.replace(str(path), value)
            assert json.loads(path.read_bytes()) == value
            spec.strip(value)
            assert not spec.is_edited(value)
            edited += 1

    fuzzer.run(one)
    assert edited > fuzzer.rounds / 20, "most were refused: nothing was shown"
