"""The lab: three hosts, `src`, `dst` and `peer`, with real Docker, runc and CRIU, on which everything is proved.

Two racks have the same commands (`rack.py` says which) and the same hosts::

    qemu/            emulated machines with the distribution's kernel and Soft-RoCE: the real thing
    namespaces/      namespaces of this machine's kernel with a software device: the same, many times as fast

`choice.py` tells which of them is meant. What both share is here: `plan.py` the nodes, addresses and places;
`filesystem.py` and `container_images.py` what is made of Debian packages; `project.py` this working tree's build;
`shell.py`, `containers.py` and `rdma.py` what is done on a node. None of it uses a folder below, but `choice.py`.
"""
