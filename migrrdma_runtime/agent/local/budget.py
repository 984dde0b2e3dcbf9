"""How much of this process's memory the answers of one container's guests may take."""

from __future__ import annotations

from migrrdma_runtime.base.errors import MessageError

MOST_OF_AN_ANSWER = {
    "CONTEXTS": 1 << 8,
    "QPS": 1 << 16,
    "MRS": 1 << 18,
    "INVENTORY_IS": 1 << 10,
    "DONE": 1 << 16,
}
"""Records of one answer, whatever number of messages it takes; a process with more cannot be moved."""

MOST_OF_A_CONTAINER = 1 << 19
"""Records of all answers that are under way at one time."""


class Budget:
    """The records that the guests of one container have under way."""

    def __init__(self, container: str) -> None:
        self._container = container
        self._taken = 0

    def take(self, records: int) -> None:
        """Some more have come; `MessageError` if they are too many."""
        if self._taken + records > MOST_OF_A_CONTAINER:
            raise MessageError(
                f"the processes of container {self._container:.12} answer with more than {MOST_OF_A_CONTAINER} "
                "records at a time"
            )
        self._taken += records

    def give_back(self, records: int) -> None:
        """They have been worked through, or thrown away."""
        self._taken -= records
