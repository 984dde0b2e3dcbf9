"""The same where Docker keeps images and layers in containerd's image store, as a new Docker 29 does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine_on_node import EngineOnNode, of
from migrrdma_lab.plan import container_image
from migrrdma_lab.shell import Shell

_NAME = "clone"
_IMAGE = container_image("trixie")
_OWN = "registry.example/own:1"
_FILE = "/etc/docker/daemon.json"

# Killed: a daemon that is stopped unmounts whatever is below its folder, also the layers that the rack mounts there.
_SWITCH = f"""
docker save -o /root/image.tar {_IMAGE}
cp {_FILE} {_FILE}.kept
python3 - <<'END'
import json
settings = json.load(open("{_FILE}"))
settings.setdefault("features", {{}})["containerd-snapshotter"] = True
json.dump(settings, open("{_FILE}", "w"))
END
systemctl kill --signal=KILL --kill-whom=main docker
systemctl restart docker
docker load -i /root/image.tar
rm /root/image.tar
"""

_SWITCH_BACK = f"""
docker rm -fv {_NAME}
docker rmi -f {_OWN} {_IMAGE}
mv {_FILE}.kept {_FILE}
systemctl kill --signal=KILL --kill-whom=main docker
systemctl restart docker
"""


@pytest.fixture(name="both", scope="module")
def _both(src: Shell, dst: Shell) -> Iterator[tuple[EngineOnNode, EngineOnNode]]:
    """Two hosts whose Docker keeps its images there."""
    try:
        for node in (src, dst):
            node.sh(_SWITCH)
        yield EngineOnNode(src, "docker"), EngineOnNode(dst, "docker")
    finally:
        for node in (src, dst):
            node.sh(_SWITCH_BACK, check=False)


def test_a_container_and_its_image_are_equal_elsewhere(both: tuple[EngineOnNode, EngineOnNode]) -> None:
    source, destination = both
    here, there = source.shell, destination.shell
    here.sh(
        f"docker create --name={_NAME} {_IMAGE} true; echo more >/root/more\n"
        f"docker cp /root/more {_NAME}:/more; docker commit {_NAME} {_OWN}; docker rm {_NAME}\n"
        f"docker run -d --runtime=migrrdma --name={_NAME} {_OWN} sh -c 'echo here >/written; exec sleep 600'\n"
        f"until docker exec {_NAME} cat /written; do :; done"
    )
    assert here.sh(f"cat {source.ask('layer', of(_NAME))}/written").stdout == "here\n"
    described = source.ask("describe", of(_NAME))
    image = described["image_id"]
    assert destination.ask("layers_here", source.ask("layers", image)) == 0
    destination.load(source.save(image, _OWN), image)
    destination.ask("create", described)
    layer = destination.ask("layer", of(_NAME))
    there.sh(f"echo brought >{layer}/brought")
    there.run("docker", "start", _NAME)
    assert destination.ask("layer", of(_NAME)) == layer
    assert there.run("docker", "exec", _NAME, "cat", "/more", "/brought").stdout == "more\nbrought\n"
    made, original = destination.inspect(_NAME), source.inspect(_NAME)
    for member in ("Image", "Config", "HostConfig"):
        assert made[member] == original[member]


def test_another_store_elsewhere_is_told(both: tuple[EngineOnNode, EngineOnNode], peer: Shell) -> None:
    source, _ = both
    source.shell.run("docker", "rm", "-fv", _NAME, check=False)
    source.shell.run("docker", "create", "--runtime=migrrdma", f"--name={_NAME}", _IMAGE, "true")
    (told,) = EngineOnNode(peer, "docker").ask("obstacles", source.ask("describe", of(_NAME)))
    assert told["what"].startswith(
        "Docker keeps images in a store of its own here, and in containerd's store"
    )
