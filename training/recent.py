"""What was used last stays in memory, as much of it as fits: one clip is often looked at again soon."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import TypeVar, cast

Value = TypeVar("Value")


class Recent:
    """Values by key, the least recently used forgotten first; for several threads."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._held: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Value], size_of: Callable[[Value], int]) -> Value:
        """The value of a key, made if it is not there; two threads may both make it.

        One that is larger than all that may be held is given and not kept."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return cast(Value, self._held[key][0])
        value = make()
        size = size_of(value)
        with self._lock:
            if key not in self._held and size <= self.most_bytes:
                self._held[key] = value, size
                self._bytes += size
                while self._bytes > self.most_bytes:
                    self._bytes -= self._held.popitem(last=False)[1][1]
        return value
