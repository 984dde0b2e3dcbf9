"""The host agent: one per host, between the guests here, the OCI runtime here and the agents elsewhere.

::

    roles/source.py       a checkpoint: suspend the partners, drain both ends, let the runtime dump (read this first)
    roles/destination.py  a restore: claim, rebuild, connect, *commit*, switch                      (and then this)
    roles/partner.py      the other end of a connection that moves: wait, prepare, switch, or go back
    roles/states.py       the states of the three roles and the transitions between them: the protocol's law
    roles/arbiter.py      who may restore a checkpoint: the one write that commits
    roles/store.py        what outlives the agent
    peers/                the agents elsewhere: configuration, certificates, and the transport on mutual TLS
    local/                the processes, containers, devices and OCI runtime here, and the two sockets they come to
    observe/              what an operator sees: log records, metrics
    daemon.py             puts it all together
    watchdog.py           lets systemd know that its one loop goes round
    process.py            starts it: alone on the host, the sockets first, an exit code for systemd

It uses agent.observe, agent.roles, agent.peers, agent.local, wire and base.

One thread runs everything, in one asyncio loop. A migration is a few dozen messages and a wait, so there is
no work to spread over threads, and with one thread every state transition is atomic between two ``await``: no
lock, no lock order, no half-written state. It is asyncio and not trio because grpcio, the RPC stack that both
Debian 12 and 13 carry, has an asyncio face and none for trio. SQLite is called synchronously on purpose: what
it commits must be on disk before the next message goes out, and it commits a dozen times in a migration.
"""
