#!/usr/bin/env python3
"""What an MPI launcher needs of ssh: a command in the other container.

Usage: remote_shell.py                  serves: runs what it is told, one command per connection
       remote_shell.py HOST COMMAND...  the launcher's "ssh"
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys

PORT = 2222


def serve() -> None:
    listener = socket.create_server(("", PORT))
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            command = connection.makefile().readline()
            output = connection.fileno()
            subprocess.Popen(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def run(host: str, command: str) -> None:
    with socket.create_connection((host, PORT)) as connection:
        connection.sendall(f"{command}\n".encode())
        shutil.copyfileobj(connection.makefile("rb"), sys.stdout.buffer)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        serve()
    else:
        host, *command = [word for word in sys.argv[1:] if word != "-x"]
        run(host, " ".join(command))
