"""Search every world of a model that can come to be, and tell how one came about."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

World = TypeVar("World", bound=Hashable)


@dataclass
class Searched(Generic[World]):
    """What a search has found."""

    came_from: dict[World, World | None]
    """Every world, with one that it came from."""
    before: dict[World, list[World]] = field(default_factory=dict)
    """The other way round, with all of them."""

    def story(self, world: World | None) -> str:
        """How it came to this, for the message of a failed test."""
        lines = []
        while world is not None:
            lines.append(str(world))
            world = self.came_from[world]
        return "\n".join(reversed(lines))

    def leading_to(self, ends: Iterable[World]) -> Collection[World]:
        """The worlds from which there is a way to one of these."""
        found = set(ends)
        queue = deque(found)
        while queue:
            for earlier in self.before.get(queue.popleft(), ()):
                if earlier not in found:
                    found.add(earlier)
                    queue.append(earlier)
        return found


def search(
    first: World, rules: Iterable[Callable[[World], Iterator[World]]], violation: Callable[[World], str]
) -> Searched[World]:
    """Follow every rule from the first world on, until nothing is new or one violates what must hold."""
    steps = tuple(rules)
    came_from: dict[World, World | None] = {first: None}
    searched = Searched(came_from)
    queue = deque([first])
    while queue:
        world = queue.popleft()
        if violation(world):
            break  # one is enough
        for rule in steps:
            for after in rule(world):
                searched.before.setdefault(after, []).append(world)
                if after not in came_from:
                    came_from[after] = world
                    queue.append(after)
    return searched
