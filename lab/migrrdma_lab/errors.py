"""What can go wrong with the rack; every message names the object and the remedy."""


class RackError(Exception):
    """Base: the rack cannot do what was asked."""


class BuildError(RackError):
    """An image could not be built; carries the tail of the build's log."""


class MachineError(RackError):
    """A virtual machine did not start, stop, snapshot or answer in time."""


class NodeCommandError(RackError):
    """A command on a node exited non-zero; carries its exit code, output and error output."""

    def __init__(self, message: str, code: int, stdout: str, stderr: str) -> None:
        super().__init__(message)
        self.code = code
        self.stdout = stdout
        self.stderr = stderr
