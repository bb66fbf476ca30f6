"""What the schedule hands to the runtime: kernels as text, phases, slots and the memory plan.

These records are plain data: nothing in them is compiled yet, so a plan can be printed,
compared and tested without LLVM.  `facula.runtime.program.Program` turns one into machine code.

Slots.  A program owns a table of `n_slots` 8-byte words.  Slot 0 is the pointer to the status
word (0 = fine; a kernel that meets an out-of-range index stores its step code there).  The
`arguments` are filled by each launch, arena slots and constants once when the program is made.

Memory.  Temporaries live at fixed offsets of one arena; the offsets come from the plan, and the
arena itself is taken once and kept by the program.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

__all__ = ["STATUS_SLOT", "KernelPlan", "PhasePlan", "ProgramPlan"]

STATUS_SLOT = 0
"""The slot that always holds the pointer to the program's status word."""


@dataclass(frozen=True)
class KernelPlan:
    """One kernel: `void @name(ptr %args, ptr %map, i64 %tile)`, called for tile 0..ntiles-1.

    `llvm_text` is the module that defines `@name`, with its register tiles behind it as
    `facula.codegen.llvm.Module.text` writes them; kernels with equal text are compiled once, so
    the text must not mention slots or addresses: `slots[j]` is the slot of operand j.
    Tiles of one kernel, and all kernels of one phase, may run at the same time and in any order.
    `numbers` stand in the map after the slots, for a kernel that reads there what would otherwise
    be constants of its text.  `group` is for people: which of the schedule's groups it belongs to.
    """

    name: str
    llvm_text: str
    slots: tuple[int, ...]
    ntiles: int = 1
    group: int = -1
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class PhasePlan:
    """Kernels that do not depend on one another; a barrier follows the phase."""

    kernels: tuple[KernelPlan, ...]


@dataclass(frozen=True)
class ProgramPlan:
    """A whole program.

    arguments     one (slot, format) for each value that a launch passes, in that order.  The
                  format is 'P' (a pointer, an int in Python), 'd' (a float kept as a double),
                  'q' (a signed 64-bit integer) or 'Q' (unsigned).  A complex scalar is two
                  arguments in neighbouring slots.
    arena_bytes   size of the memory for temporaries, which is 64-byte aligned.
    arena_slots   slot -> byte offset into the arena.
    constants     slot -> bytes that stay the same for the program's life; the slot becomes a
                  pointer to a 64-byte aligned copy of them.
    once          how many of the first phases are not part of a run: they make what is in some of
                  the arguments of the others, when it has to be made anew.
    cost          estimated work in nanoseconds on one thread; a program cheaper than
                  `facula.runtime.threads.SOLO_COST` runs on the calling thread alone.
    """

    phases: tuple[PhasePlan, ...]
    n_slots: int
    arguments: tuple[tuple[int, str], ...] = ()
    arena_bytes: int = 0
    arena_slots: dict[int, int] = field(default_factory=dict)
    constants: dict[int, bytes] = field(default_factory=dict)
    once: int = 0
    cost: float = 0.0
    name: str = "program"

    def without_text(self) -> ProgramPlan:
        """The same plan for those who only look at it: compiled kernels need no text."""
        return replace(self, phases=tuple([
            PhasePlan(tuple([replace(k, llvm_text="") for k in phase.kernels]))
            for phase in self.phases]))
