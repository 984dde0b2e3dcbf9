"""The emulated rack: QEMU machines with the distribution's own kernel, so with the kernel's RDMA and dirty tracking.

How it comes up, and which module does it::

    disk.py      the node's file system → a machine's disk, kernel and initrd            (seconds, cached)
    golden.py    boot one machine, load the container images, snapshot it running        (a minute, cached)
    rack.py      three copies of that snapshot, each given a name and addresses          (seconds)
    rack.py      `boot` snapshot, to which `reset` goes back

`machine.py` is one QEMU process, `network.py` the bridges and taps it hangs on, `ssh.py` the way into it.
This folder uses what both racks share, and nothing of the other rack.
"""
