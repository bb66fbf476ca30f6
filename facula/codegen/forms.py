"""Kernels of several sizes as one: the numbers in which their texts differ are told at run time.

What is generated for one batch size and for another is, mostly, one text with other numbers in it.
A `Form` is such a text.  Where the numbers of the texts that it has met differ it reads a number
that stands in the kernel's map, after the slots, so that one piece of machine code serves all of
them, and any text yet to come that differs in nothing else.  A kernel of a form is, with its
numbers in their places, exactly the text that was generated for its size: nothing is concluded from
one size about another, and a text that does not fit becomes a form of its own.

Only numbers that LLVM lets be values can be told: operands of type i64, i32, float and double in
the bodies of functions.  The size of an array on the stack cannot, but may be larger than it need
be.  A text that differs from a form in any other place is not of that form.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

__all__ = ["Form"]

_NUMBER = re.compile(r'(?<![\w.%@!"-])(?:0x[0-9A-F]{16}|-?\d+)(?![\w.])')
_TYPED = re.compile(r"(?:^|[ (])(i64|i32|float|double) $")
_BINARY = re.compile(
    r"= (?:add|sub|mul|sdiv|udiv|srem|urem|shl|lshr|ashr|and|or|xor|icmp|fadd|fsub|fmul|fdiv|fcmp)"
    r" (?:[a-z]+ )*(i64|i32|float|double) ")
_PHI = re.compile(r"= phi (i64|i32|float|double) ")
_ALLOCA = re.compile(r"= alloca [^,]+, i64 $")
_FUNCTION = re.compile(r"(define|declare) .*?@([\w.]+)\(")
_CALL = re.compile(r"call [^@]*@([\w.]+)\(")

_BACK = re.compile(r"  br label %(\S+), !llvm.loop (!\d+)$")
_LOOP = re.compile(r"(!\d+) = distinct !\{!\d+, (!\d+)\}$")
_FULL = ' = !{!"llvm.loop.unroll.full"}'

Where = tuple[int, int]
"""A number of a text: which line it is in, and the how manieth it is there."""


class _Hole(NamedTuple):
    """A value that is told: of what type, and in which places."""

    type: str
    places: list[Where]


class Form:
    """A text, and those that differ from it in numbers alone.

    Texts, with the kernel's name taken out of them (see `plain`), are given as lines; the kernel
    has `operands` slots.
    """

    def __init__(self, lines: list[str], operands: int):
        self.lines, self.operands = lines, operands
        self.met: list[dict[Where, str]] = [{}]     # of each text met, where it differs, and how
        self.holes: list[_Hole] = []
        self.rooms: dict[Where, int] = {}           # sizes of arrays on the stack that vary
        self.text = ""
        self._split: dict[int, tuple[list[str], list[str]]] = {}
        self._types: dict[Where, str | None] = {}

    @staticmethod
    def plain(name: str, text: str) -> tuple[str, str]:
        """A kernel's name and text without the hash that tells it from others."""
        return name.replace(name[:21], "KERNEL"), text.replace(name[:21], "KERNEL")

    def differences(self, lines: list[str]) -> dict[Where, str] | None:
        """Where `lines` have another number than this text, and which; None if they differ in
        anything else."""
        own = self.lines
        if len(lines) != len(own):
            return None
        found: dict[Where, str] = {}
        for i in [i for i, (a, b) in enumerate(zip(own, lines)) if a != b]:
            known = self._split.get(i)
            if known is None:
                known = self._split[i] = _NUMBER.split(own[i]), _NUMBER.findall(own[i])
            if _NUMBER.split(lines[i]) != known[0]:
                return None
            for j, (a, b) in enumerate(zip(known[1], _NUMBER.findall(lines[i]))):
                if a != b:
                    if self._type((i, j)) is None:
                        return None
                    found[i, j] = b
        return found

    def numbers(self, different: dict[Where, str]) -> tuple[int, ...] | None:
        """What to tell the kernel so that it is the text with these differences; None if the
        code that there is cannot be that text."""
        told = []
        seen = 0
        for type_, places in self.holes:
            first = self._at(places[0], different)
            if any(self._at(place, different) != first for place in places[1:]):
                return None
            seen += sum(place in different for place in places)
            told.append(_word(first, type_))
        for place, room in self.rooms.items():
            if int(self._at(place, different)) > room:
                return None
            seen += place in different
        return tuple(told) if seen == len(different) else None

    def widen(self, different: dict[Where, str], name: str) -> None:
        """Make the form one of a text with these differences, too; `name` is what the kernel is
        called in the text."""
        self.met.append(different)
        places = sorted({place for text in self.met for place in text})
        values: dict[tuple[str, ...], list[Where]] = {}
        self.rooms = {}
        for place in places:
            type_ = self._type(place)
            assert type_ is not None
            all_ = [self._at(place, text) for text in self.met]
            if type_ == "room":
                self.rooms[place] = 1 << (max(map(int, all_)) - 1).bit_length()
            else:
                values.setdefault((type_, *all_), []).append(place)
        # What has been the same number in all texts is one value: LLVM sees that it is.
        self.holes = [_Hole(key[0], found) for key, found in values.items()]
        self.text = self._written(name)

    def _at(self, place: Where, different: dict[Where, str]) -> str:
        found = different.get(place)
        return self._split[place[0]][1][place[1]] if found is None else found

    def _type(self, place: Where) -> str | None:
        """The type of the value that may stand for a number; 'room' for the size of an array on
        the stack, None where only a number can stand."""
        if place not in self._types:
            self._types[place] = self._look(place)
        return self._types[place]

    def _look(self, place: Where) -> str | None:
        line = self.lines[place[0]]
        if not line.startswith("  ") or line.startswith("  switch "):
            return None
        for j, match in enumerate(_NUMBER.finditer(line)):
            if j == place[1]:
                break
        else:
            return None
        before = line[:match.start()]
        hexadecimal = match.group().startswith("0x")
        if _ALLOCA.search(before):
            return "room"
        if before.count("<") > before.count(">") or before.endswith("align "):
            return None
        found = _TYPED.search(before)
        if found is None and before.endswith(", "):
            found = _BINARY.search(before)
        if found is None and before.endswith("[ "):
            found = _PHI.search(before)
        if found is None or (found[1] in ("float", "double")) != hexadecimal:
            return None
        if found[1] == "i32" and ("call " in before or "insertelement" in before
                                  or "extractelement" in before or "getelementptr" in before):
            return None         # intrinsics and vectors take some of these as they are written
        return found[1]

    def _written(self, name: str) -> str:
        """The text that is compiled, still without a name of its own."""
        inside: dict[str, list[int]] = {}       # function -> its holes
        owner = ""
        owners = []
        for line in self.lines:
            found = _FUNCTION.match(line)
            if found is not None and found[1] == "define":
                owner = found[2]
                inside[owner] = []
            owners.append(owner)
        by_line: dict[int, dict[int, str]] = {}
        for number, (_, places) in enumerate(self.holes):
            for i, j in places:
                by_line.setdefault(i, {})[j] = f"%told{number}"
                if number not in inside[owners[i]]:
                    inside[owners[i]].append(number)
        for (i, j), room in self.rooms.items():
            by_line.setdefault(i, {})[j] = str(room)
        self._pass_down(inside, owners)
        kept = self._rolled(by_line)

        def passed(function: str) -> str:
            """Parameters, and arguments, that a function has besides its own."""
            return "".join([f", {self.holes[k].type} %told{k}" for k in inside.get(function, ())])

        out = []
        for i, line in enumerate(self.lines):
            new = by_line.get(i)
            if new is not None:
                parts, tokens = self._split[i]
                line = parts[0] + "".join([new.get(j, t) + parts[j + 1]
                                           for j, t in enumerate(tokens)])
            here = owners[i]
            if i in kept:
                line = kept[i]
            function = _FUNCTION.match(line)
            if function is not None and function[2] != name:
                line = line.replace(")", f"{passed(function[2])})", 1)
            elif line.startswith("  ") and (call := _CALL.search(line)):
                at = line.rindex(")")
                line = line[:at] + passed(call[1]) + line[at:]
            out.append(line)
            if line == "entry:" and here == name:
                out += self._loads(inside[name])
        return "\n".join(out)

    def _rolled(self, told: dict[int, dict[int, str]]) -> dict[int, str]:
        """Metadata, by line, of loops that were to be written out, and are told how long they are:
        nobody can write those out any more."""
        heads, label = set(), ""
        for i, line in enumerate(self.lines):
            if line.endswith(":"):
                label = line[:-1]
            elif i in told and " = icmp " in line:
                heads.add(label)
        loops = {found[2] for line in self.lines
                 if (found := _BACK.match(line)) and found[1] in heads}
        full = {line.split(" ", 1)[0] for line in self.lines if line.endswith(_FULL)}
        out = {}
        for i, line in enumerate(self.lines):
            parts = _LOOP.match(line)
            if parts is not None and parts[1] in loops and parts[2] in full:
                out[i] = f"{parts[1]} = distinct !{{{parts[1]}}}"
        return out

    def _pass_down(self, inside: dict[str, list[int]], owners: Sequence[str]) -> None:
        """Who calls a function passes it its numbers, and so has them itself."""
        calls = {(owners[i], call[1]) for i, line in enumerate(self.lines)
                 if line.startswith("  ") and (call := _CALL.search(line)) and call[1] in inside}
        changed = True
        while changed:
            changed = False
            for caller, callee in sorted(calls):
                for number in inside[callee]:
                    if number not in inside[caller]:
                        inside[caller].append(number)
                        changed = True

    def _loads(self, numbers: Sequence[int]) -> list[str]:
        out = []
        for k in numbers:
            type_ = self.holes[k].type
            out.append(f"  %told{k}.at = getelementptr i64, ptr %map, i64 {self.operands + k}")
            word = {"i64": "i64", "i32": "i64"}.get(type_, "double")
            loaded = f"%told{k}" if type_ == word else f"%told{k}.wide"
            out.append(f"  {loaded} = load {word}, ptr %told{k}.at, align 8")
            if type_ != word:
                how = "trunc i64" if type_ == "i32" else "fptrunc double"
                out.append(f"  %told{k} = {how} {loaded} to {type_}")
        return out

    def named(self, name: str) -> tuple[str, str]:
        """Name and text of the kernel that is called `name` in the text."""
        own = "k" + blake2b(self.text.encode(), digest_size=10).hexdigest()
        return name.replace("KERNEL", own), self.text.replace("@KERNEL", f"@{own}")


def _word(number: str, type_: str) -> int:
    """What stands in the map for a number of the text: itself, or the bits of a double."""
    value = int(number, 0)
    if type_ in ("float", "double"):
        return int(struct.unpack("<q", struct.pack("<Q", value))[0])
    return value
