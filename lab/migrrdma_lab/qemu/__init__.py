"""The emulated rack: QEMU machines with the distribution's own kernel, so with the kernel's RDMA and dirty tracking.

How it comes up, and which module does it::

    disk.py      the node's file system → a machine's disk, kernel and initrd            (seconds, cached)
    golden.py    boot one machine, load the container images, shut it down               (a minute, cached)
    rack.py      three machines on overlays of that disk, booted at once, the project    (half a minute)
    rack.py      `boot` snapshot, to which `reset` goes back

`emulator.py` is where QEMU comes from, `machine.py` one QEMU process, `network.py` the bridges and taps it hangs on,
`ssh.py` the way into it.
This folder uses what both racks share, and nothing of the other rack.
"""
