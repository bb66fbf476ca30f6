"""What a kernel is, and how a value lies in memory.

A product's generators write drafts, whose operands are known by the roles that they have in it;
what the runtime gets are texts, whose operands are slots of a program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from facula.codegen.llvm import Module

__all__ = ["ATTRS", "KernelDraft", "KernelText", "Role", "Storage", "View", "named"]

ATTRS = '"prefer-vector-width"="512" "no-trapping-math"="true" nounwind'


@dataclass(frozen=True)
class Storage:
    """Where a value lies: a slot of the program, and strides in elements."""

    slot: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class View:
    """An operand in memory: element strides of its dimensions, and where it begins."""

    strides: tuple[int, ...]
    offset: int = 0


Role = str | tuple[str, int]
"""What an operand of a kernel is: 'a', 'b', 'c', 'tmp0', ... or ('extra', i)."""


@dataclass(frozen=True)
class KernelDraft:
    """One function `void @name(ptr %args, ptr %map, i64 %tile)`; `module` defines it whole.

    `weight` is what all its tiles take, in units of the product's flops at their best rate.
    """

    name: str
    roles: tuple[Role, ...]
    ntiles: int
    module: Module = field(compare=False, repr=False)
    weight: float = 1.0


@dataclass(frozen=True)
class KernelText:
    """What the runtime needs of one kernel, and what it is estimated to cost.

    `text` is all of its module, with the final `name` in it (see `named`); `numbers` are those
    that it is told (`KernelWriter.told`).
    """

    name: str
    text: str
    slots: tuple[int, ...]
    ntiles: int
    cost: float
    numbers: tuple[int, ...] = ()


def named(module: Module) -> tuple[str, str]:
    """A kernel's name, made of its content, and the module's text with that name in it."""
    text = module.text()
    name = "k" + blake2b(text.encode(), digest_size=10).hexdigest()
    return name, text.replace("@KERNEL", f"@{name}")
