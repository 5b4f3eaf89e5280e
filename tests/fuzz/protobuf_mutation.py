"""Changes of protobuf messages, by their descriptors."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

MutateBytes = Callable[[bytes, int], bytes]

BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
NUMBERS = (0, 1, -1, 2, 3, 4, 5, 8, 16, 32, 64, 128, 256, 4096, 10_000, 2**20, 2**31 - 1, 2**40,
           2**62, 2**63)  # fmt: skip
FLOATS = (0.0, -0.0, 0.01, 0.5, 1.0, 6.0, -1.0, 1e308, 5e-324, float("inf"), float("nan"))
TEXTS = ("", "a", "\0", "/", "..", "(((", "a.*", "lm_head", "é世\u202e", "a" * 300, "{}", "jobs/a")
MAX_DEPTH = 6


def mutate_message(
    data: bytes,
    message_class: type[Message],
    max_size: int,
    rng: random.Random,
    mutate_bytes: MutateBytes,
    words: Sequence[str] = (),
) -> bytes:
    """The bytes of a message with a few changes; ``words`` are texts that mean something."""
    try:
        message = message_class.FromString(data)
    except DecodeError:
        return mutate_bytes(data, max_size)
    if rng.random() < 0.08:
        return mutate_bytes(data, max_size)
    change = _Change(rng, mutate_bytes, (*TEXTS, *words))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        change.one_of(message)
    changed = message.SerializeToString()
    if rng.random() < 0.02:  # a field of a newer spec
        changed += bytes([(rng.randrange(16, 2000) << 3 & 0x7F) | 0x80, 1, 0])
    return changed if len(changed) <= max_size else mutate_bytes(data, max_size)


class _Change:
    def __init__(self, rng: random.Random, mutate_bytes: MutateBytes, words: Sequence[str]) -> None:
        self.rng = rng
        self.mutate_bytes = mutate_bytes
        self.words = words

    def one_of(self, message: Message) -> None:
        """Changes one field of the message or of one within it."""
        holders = [holder for holder in _messages(message) if holder.DESCRIPTOR.fields]
        if not holders:
            return
        holder = self.rng.choice(holders)
        field = self.rng.choice(holder.DESCRIPTOR.fields)
        if self.rng.random() < 0.15:
            holder.ClearField(field.name)
        elif _is_map(field):
            self._map(getattr(holder, field.name), field)
        elif field.is_repeated:
            self._repeated(getattr(holder, field.name), field)
        elif field.message_type is not None:
            value = getattr(holder, field.name)
            value.SetInParent()
            self._fill(value, 1)
        else:
            old = getattr(holder, field.name)
            setattr(holder, field.name, self._scalar(field, old))

    def _map(self, container: Any, field: Any) -> None:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        if container and self.rng.random() < 0.3:
            del container[self.rng.choice(sorted(container))]
        elif value.message_type is not None:
            self._fill(container[self._scalar(key, None)], 1)
        else:
            container[self._scalar(key, None)] = self._scalar(value, None)

    def _repeated(self, container: Any, field: Any) -> None:
        if len(container) and self.rng.random() < 0.3:
            del container[self.rng.randrange(len(container))]
        elif field.message_type is not None:
            added = container.add()
            if len(container) > 1 and self.rng.random() < 0.3:
                added.CopyFrom(container[self.rng.randrange(len(container))])
            else:
                self._fill(added, 1)
        elif len(container) and self.rng.random() < 0.5:
            place = self.rng.randrange(len(container))
            container[place] = self._scalar(field, container[place])
        else:
            count = 200 if self.rng.random() < 0.05 else 1
            container.extend(self._scalar(field, None) for _ in range(count))

    def _fill(self, message: Message, depth: int) -> None:
        """Sets some of the fields of a message."""
        for field in message.DESCRIPTOR.fields:
            if depth > MAX_DEPTH or self.rng.random() < 0.6:
                continue
            if _is_map(field):
                self._map(getattr(message, field.name), field)
            elif field.is_repeated:
                self._repeated(getattr(message, field.name), field)
            elif field.message_type is not None:
                value = getattr(message, field.name)
                value.SetInParent()
                self._fill(value, depth + 1)
            else:
                setattr(message, field.name, self._scalar(field, None))

    def _scalar(self, field: Any, old: Any) -> Any:
        rng = self.rng
        if field.enum_type is not None:
            known = list(field.enum_type.values_by_number)
            return rng.choice((*known, *known, 99, -1))
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        if field.cpp_type in BITS:
            low, high = BITS[field.cpp_type]
            near = (old or 0) + rng.choice((-1, 1, 32)) if rng.random() < 0.3 else None
            return min(max(rng.choice(NUMBERS) if near is None else near, low), high)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self.mutate_bytes(old or b"a", 200)
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return self._text(old)
        return rng.choice((*FLOATS, (old or 0.0) + rng.choice((-1.0, 0.001, 1.0))))

    def _text(self, old: str | None) -> str:
        if old and self.rng.random() < 0.4:
            return self.mutate_bytes(old.encode(), len(old) + 40).decode("utf-8", "ignore")
        if old and self.rng.random() < 0.1:
            return old + self.rng.choice(self.words)
        return self.rng.choice(self.words)


def _messages(message: Message) -> list[Message]:
    """The message and all within it."""
    found, todo = [], [message]
    while todo:
        holder = todo.pop()
        found.append(holder)
        for field, value in holder.ListFields():
            if field.message_type is None:
                continue
            if _is_map(field):
                if field.message_type.fields_by_name["value"].message_type is not None:
                    todo.extend(value.values())
            else:
                todo.extend(value if field.is_repeated else [value])
    return found


def _is_map(field: Any) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)
