"""The rack: three virtual machines with real Docker, CRIU and Soft-RoCE, on which everything is proved.

How it comes up, and which module does it::

    images.py    Debian packages → the node's file system and the container images      (minutes, cached)
    golden.py    boot one machine, load the container images, snapshot it running       (a minute, cached)
    rack.py      three copies of that snapshot, each given a name and addresses         (seconds)
    project.py   this working tree's build on every node
    rack.py      `boot` snapshot, to which `reset` goes back

`machine.py` is one QEMU process, `network.py` the bridges and taps it hangs on, `shell.py` ssh to it.
"""
