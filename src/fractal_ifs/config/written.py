"""Keys as they are written, of groups that users add files to: compared and fingerprinted by that."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Written:
    """Keys with plain values."""

    keys: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def plain(self) -> dict[str, Any]:
        """The keys as a record stores them."""
        return copy.deepcopy(dict(self.keys))

    def __bool__(self) -> bool:
        return bool(self.keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.keys == other.keys

    def __hash__(self) -> int:
        return hash(json.dumps(self.keys, sort_keys=True))


NOTHING = Written()
