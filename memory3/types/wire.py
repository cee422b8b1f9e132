"""Help for the conversions of this package: plain fields by name, and enums that a newer server cannot break.

Knows no message.
"""

from __future__ import annotations

import enum
from dataclasses import Field
from typing import Any, ClassVar, Protocol

from google.protobuf.message import Message


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def plain(cls: type[_Dataclass], pb: Message) -> dict[str, Any]:
    """The fields of `pb` that have the names of the dataclass's fields; for messages of scalars only."""
    return {name: getattr(pb, name) for name in cls.__dataclass_fields__}


class TolerantEnum(enum.IntEnum):
    """An enum that clients read: a number of a newer server becomes the member 0 instead of an error."""

    @classmethod
    def _missing_(cls, value: object) -> TolerantEnum | None:
        return cls(0) if isinstance(value, int) and value != 0 else None
