"""The fast rack: three hosts as namespaces of this machine's own kernel, with a software RDMA device.

How it comes up, and which module does it::

    requirements.py   does this kernel have what it takes? what is missing, and the remedy
    keeper.py         PID 1 of the rack's own PID namespace: it ends, and with it everything in the rack
    keeping.py        starts, finds and stops it, and runs commands in its namespaces
    network.py        the data network: a bridge in the rack's network namespace
    system.py         Debian, and what a node among namespaces needs over it
    layers.py         what the nodes' file systems are made of besides: Docker with its images, this project
    disk.py           a node's disk: an overlay on those layers, and the folders that Docker needs beside it
    host.py           one node: namespaces entered by systemd as its PID 1 (`node/boot-node`), power, disk, clock
    shell.py          commands on a node
    rack.py           the rack as one thing

Everything is mounted in the rack's own mount namespace and runs in its own PID namespace: when the keeper is killed,
however, the kernel ends every process and removes every mount and network. Cgroups alone outlive it; `cgroups.py`.
"""
