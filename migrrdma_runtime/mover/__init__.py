"""The mover: one per host, moves containers from one engine to another while their agents move the RDMA in them.

::

    departure.py   a container that leaves: from the first look to the receipt, or undone        (read this first)
    carriage.py    its way, from the first byte to the commit                                    (and then this)
    arrival.py     a container that comes: made, filled, started, or removed again               (and then this)
    preflight.py   what would hinder a move, on either host
    journey.py     one move while it is under way
    there.py       the mover of the other host, as this one asks it
    orders.py      moves that are asked for at another host
    brought.py     volumes and folders that are made for it, and removed again
    book.py        what outlives the mover
    rounds.py      memory that goes ahead: whether one more round pays
    layer.py       what has changed of files that were sent, and what has gone
    mapped.py      files whose times do not say whether they have changed
    streams.py     files on their way, as tar writes them
    guest_library.py  the library that its processes run, brought along
    facts.py       what two hosts must have in common
    connections.py established TCP connections
    agent_here.py  what this host's agent is asked
    dump.py        the runtime's checkpoint, run as an engine would
    requests.py    what the command line and the OCI runtime of this host ask
    daemon.py      puts it together; process.py starts it

It uses engine, agent, agent.observe, agent.peers, agent.local, shim, wire and base.

It is not part of the agent: an engine and CRIU need all of root's rights, of which the agent has nearly none, and
gigabytes pass through here while an agent's one loop must answer within milliseconds. What decides which host the
application runs on is the agents' alone (``agent/roles/arbiter.py``): a mover that dies leaves that as it is, and the
next one asks.
"""
