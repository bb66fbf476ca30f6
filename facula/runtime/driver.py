"""The machine code that launches programs and that the pool's threads live in, as LLVM text.

A program is a list of phases, a phase a list of kernels, a kernel a number of tiles.  One thread
leads a program: it publishes each phase, claims tiles like everybody else, and when there are no
more to claim waits for those that others are in the middle of.

* The tiles of the phase at hand are numbered from 0.  The word `state` holds the first and the
  last that nobody has claimed, and the phase's own number; a claim is one compare-and-swap.
  The phase's number keeps a thread that was asleep from claiming in a later phase what it has
  seen in an earlier one.
* The thread that launches claims from the front and the workers from the back.  So the same
  thread meets the same tiles launch after launch, and finds the weights that it wrote last time
  in its own cache; what is uneven is evened out where the two meet.
* `done` counts finished tiles for ever; the leader knows at which count its phase is complete.
* A worker without work watches for some microseconds, then sleeps on a futex until a phase is
  published; so does a thread that has joined in.  A leader that waits does the same, which
  leaves its core to a worker that the system has taken off another core.
* A program may be handed to the workers whole (`begin`): one of them leads it, and the thread
  that launched it is free until it needs a result and joins in (`join`).
"""

from __future__ import annotations

from facula.codegen.llvm import APART, LIGHT

__all__ = ["driver_text", "BLOCK_BYTES", "SPINS", "OWNER", "FRONT", "BACK", "MOST_TILES"]

# Byte offsets in the control block; what different threads write is on different cache lines.
_STATE, _PHASE, _ARGS, _DONE, _WAITING = 0, 64, 72, 128, 192
_EPOCH, _SLEEPERS, _STOP, OWNER, SPINS = 256, 260, 264, 320, 328
_REQUEST, _FINISHED, _WAITER, _RESULT = 384, 392, 396, 400
BLOCK_BYTES = 448

FRONT, BACK = 0, 1
"""From which end a thread claims."""

_BITS = 20
MOST_TILES = (1 << _BITS) - 1
"""Phases of more tiles than this are run on the launching thread alone."""


def driver_text(futex: int | None, pause: str | None) -> str:
    """The LLVM text of the driver; see the top of this file for the protocol.  What runs stands
    apart (see `facula.codegen.llvm.APART`) from the function that says where it is.

    @facula_driver(ptr out) stores the addresses of
      i64 run(ptr pool, ptr program)    one launch; pool null: on this thread alone; the status
      void work(ptr pool, i64 end)      a worker's life; it claims from that end
      void spin(i64 n)                  n rounds of the waiting loop, to learn how long they take
      void close(ptr pool)              make the workers return
      i64 begin(ptr pool, ptr program)  hand a program to the workers; 0 if the pool is taken
      i64 join(ptr pool)                help to finish that program; its status

    A program descriptor is 8-byte words: args, number of phases, then for each phase the number
    of rows, the number of tiles, and a pointer to (function, map, tiles, first) for each row: some
    tiles of a kernel, numbered from `first`.
    """
    relax = f'call void asm sideeffect "{pause}", ""()' if pause else ""
    if futex is None:
        wait = wake = ""
    else:
        # FUTEX_WAIT_PRIVATE is 128, FUTEX_WAKE_PRIVATE 129
        wait = (f"call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 128, i32 %value, "
                "ptr null, ptr null, i32 0)")
        wake = (f"call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 129, i32 %count, "
                "ptr null, ptr null, i32 0)")
    syscall = "declare i64 @syscall(i64, ...)" if futex is not None else ""

    def at(offset: int, name: str) -> str:
        return f"%{name} = getelementptr i8, ptr %pool, i64 {offset}"

    def mark(flag: str, value: int) -> str:
        return f"store atomic i32 {value}, ptr %{flag} seq_cst, align 4"

    def lines(steps: list[str]) -> str:
        return "\n  ".join(steps)

    def wait_until(ready: str, then: str, word: str, announce: list[str],
                   withdraw: list[str]) -> str:
        """Block %wait: watch for some microseconds, then sleep on %word; to %then when %ready.

        Who makes it ready changes the word and wakes whoever has announced himself.  So after
        the announcement comes a look at the word, and after that another at what is awaited.
        """
        return f"""
wait:
  {at(SPINS, "spins.at")}
  %spins = load i64, ptr %spins.at
  br label %watch
watch:
  %i = phi i64 [ 0, %wait ], [ %j, %idle ]
  %ready = call i1 {ready}
  br i1 %ready, label %{then}, label %idle
idle:
  {relax}
  %j = add i64 %i, 1
  %patient = icmp slt i64 %j, %spins
  br i1 %patient, label %watch, label %drowsy
drowsy:
  {lines(announce)}
  %seen = load atomic i32, ptr %{word} seq_cst, align 4
  %late = call i1 {ready}
  br i1 %late, label %awake, label %sleep
sleep:
  call void @futex_wait(ptr %{word}, i32 %seen)
  br label %awake
awake:
  {lines(withdraw)}
  br label %wait"""

    lie_down = "%s0 = atomicrmw add ptr %sleepers, i32 1 seq_cst, align 4"
    get_up = "%s1 = atomicrmw sub ptr %sleepers, i32 1 seq_cst, align 4"

    return f"""
declare i64 @run(ptr, ptr)
declare void @work(ptr, i64)
declare void @spin(i64)
declare void @close(ptr)
declare i64 @begin(ptr, ptr)
declare i64 @join(ptr)

define void @facula_driver(ptr %out) {{
  store ptr @run, ptr %out
  %a = getelementptr ptr, ptr %out, i64 1
  store ptr @work, ptr %a
  %b = getelementptr ptr, ptr %out, i64 2
  store ptr @spin, ptr %b
  %c = getelementptr ptr, ptr %out, i64 3
  store ptr @close, ptr %c
  %d = getelementptr ptr, ptr %out, i64 4
  store ptr @begin, ptr %d
  %e = getelementptr ptr, ptr %out, i64 5
  store ptr @join, ptr %e
  ret void
}}
{APART}{LIGHT}
{syscall}
declare i64 @llvm.smin.i64(i64, i64)

define void @futex_wait(ptr %word, i32 %value) noinline {{
  {wait}
  ret void
}}

define void @futex_wake(ptr %word, i32 %count) noinline {{
  {wake}
  ret void
}}

; Run tile %n of a phase: find the kernel it belongs to.
define void @tile(ptr %args, ptr %phase, i64 %n) {{
entry:
  %first.at = getelementptr i64, ptr %phase, i64 2
  %first = load ptr, ptr %first.at
  br label %look
look:
  %kernel = phi ptr [ %first, %entry ], [ %following, %skip ]
  %left = phi i64 [ %n, %entry ], [ %rest, %skip ]
  %count.at = getelementptr i64, ptr %kernel, i64 2
  %count = load i64, ptr %count.at
  %here = icmp slt i64 %left, %count
  br i1 %here, label %found, label %skip
skip:
  %rest = sub i64 %left, %count
  %following = getelementptr i64, ptr %kernel, i64 4
  br label %look
found:
  %fn = load ptr, ptr %kernel
  %map.at = getelementptr i64, ptr %kernel, i64 1
  %map = load ptr, ptr %map.at
  %number.at = getelementptr i64, ptr %kernel, i64 3
  %number = load i64, ptr %number.at
  %tile = add i64 %number, %left
  call void %fn(ptr %args, ptr %map, i64 %tile)
  ret void
}}

; Claim and run tiles until there is nothing to claim.
define void @claim(ptr %pool, i64 %end) {{
entry:
  {at(_STATE, "state")}
  {at(_PHASE, "phase.at")}
  {at(_ARGS, "args.at")}
  {at(_DONE, "done")}
  {at(_WAITING, "waiting")}
  %back.end = icmp ne i64 %end, 0
  br label %again
again:
  %s = load atomic i64, ptr %state seq_cst, align 8
  %front = and i64 %s, {MOST_TILES}
  %high = lshr i64 %s, {_BITS}
  %back = and i64 %high, {MOST_TILES}
  %some = icmp ult i64 %front, %back
  br i1 %some, label %try, label %none
try:
  %up = add i64 %s, 1
  %down = sub i64 %s, {1 << _BITS}
  %new = select i1 %back.end, i64 %down, i64 %up
  %before = sub i64 %back, 1
  %n = select i1 %back.end, i64 %before, i64 %front
  %swap = cmpxchg ptr %state, i64 %s, i64 %new seq_cst seq_cst, align 8
  %mine = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %mine, label %work, label %again
work:
  ; from here to the increment of done the phase cannot end, so these stay as they are
  %phase = load ptr, ptr %phase.at
  %args = load ptr, ptr %args.at
  call void @tile(ptr %args, ptr %phase, i64 %n)
  %old = atomicrmw add ptr %done, i64 1 seq_cst, align 8
  %w = load atomic i32, ptr %waiting seq_cst, align 4
  %watched = icmp ne i32 %w, 0
  br i1 %watched, label %tell, label %again
tell:
  call void @futex_wake(ptr %done, i32 1)
  br label %again
none:
  ret void
}}

define void @spin(i64 %n) noinline {{
entry:
  br label %round
round:
  %i = phi i64 [ 0, %entry ], [ %j, %round ]
  {relax}
  call void asm sideeffect "", ""()
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %n
  br i1 %more, label %round, label %out
out:
  ret void
}}

; Wake sleeping workers, at most %count of them.
define void @ring(ptr %pool, i64 %count) {{
entry:
  {at(_EPOCH, "epoch")}
  {at(_SLEEPERS, "sleepers")}
  %s = load atomic i32, ptr %sleepers seq_cst, align 4
  %asleep = icmp ne i32 %s, 0
  br i1 %asleep, label %call, label %out
call:
  %e = atomicrmw add ptr %epoch, i32 1 seq_cst, align 4
  %few = call i64 @llvm.smin.i64(i64 %count, i64 1024)
  %n = trunc i64 %few to i32
  call void @futex_wake(ptr %epoch, i32 %n)
  br label %out
out:
  ret void
}}

; Whether there is a tile to claim.
define i1 @some(ptr %pool) alwaysinline {{
  {at(_STATE, "state")}
  %s = load atomic i64, ptr %state seq_cst, align 8
  %front = and i64 %s, {MOST_TILES}
  %high = lshr i64 %s, {_BITS}
  %back = and i64 %high, {MOST_TILES}
  %more = icmp ult i64 %front, %back
  ret i1 %more
}}

; Take the program that waits for a leader and lead it, if there is one.
define void @lead(ptr %pool, i64 %end) {{
entry:
  {at(_REQUEST, "request")}
  {at(_FINISHED, "finished")}
  {at(_WAITER, "waiter")}
  {at(_RESULT, "result")}
  {at(OWNER, "owner")}
  %r = load atomic i64, ptr %request seq_cst, align 8
  %any = icmp ne i64 %r, 0
  br i1 %any, label %try, label %out
try:
  %swap = cmpxchg ptr %request, i64 %r, i64 0 seq_cst seq_cst, align 8
  %mine = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %mine, label %go, label %out
go:
  %program = inttoptr i64 %r to ptr
  %status = call i64 @perform(ptr %pool, ptr %program, i64 %end)
  store atomic i64 %status, ptr %result seq_cst, align 8
  store atomic i32 1, ptr %finished seq_cst, align 4
  %w = load atomic i32, ptr %waiter seq_cst, align 4
  %watched = icmp ne i32 %w, 0
  br i1 %watched, label %tell, label %out
tell:
  ; who joins sleeps with the workers, so that a phase wakes it as well as the end
  {at(_EPOCH, "epoch")}
  %e = atomicrmw add ptr %epoch, i32 1 seq_cst, align 4
  call void @futex_wake(ptr %epoch, i32 2147483647)
  br label %out
out:
  ret void
}}

; Whether a worker has something to do: tiles, a program to lead, or its end.
define i1 @wanted(ptr %pool) alwaysinline {{
  {at(_REQUEST, "request")}
  {at(_STOP, "stop")}
  %some = call i1 @some(ptr %pool)
  %r = load atomic i64, ptr %request seq_cst, align 8
  %asked = icmp ne i64 %r, 0
  %quit = load atomic i32, ptr %stop seq_cst, align 4
  %ended = icmp ne i32 %quit, 0
  %work = or i1 %some, %asked
  %any = or i1 %work, %ended
  ret i1 %any
}}

define void @work(ptr %pool, i64 %end) {{
entry:
  {at(_EPOCH, "epoch")}
  {at(_SLEEPERS, "sleepers")}
  {at(_STOP, "stop")}
  br label %busy
busy:
  call void @lead(ptr %pool, i64 %end)
  call void @claim(ptr %pool, i64 %end)
  %quit = load atomic i32, ptr %stop seq_cst, align 4
  %ended = icmp ne i32 %quit, 0
  br i1 %ended, label %out, label %wait
{wait_until("@wanted(ptr %pool)", "busy", "epoch", [lie_down], [get_up])}
out:
  ret void
}}

define void @close(ptr %pool) {{
  {at(_EPOCH, "epoch")}
  {at(_STOP, "stop")}
  store atomic i32 1, ptr %stop seq_cst, align 4
  %e = atomicrmw add ptr %epoch, i32 1 seq_cst, align 4
  call void @futex_wake(ptr %epoch, i32 2147483647)
  ret void
}}

; Whether `done` has reached %l.
define i1 @complete(ptr %done, i64 %l) alwaysinline {{
  %d = load atomic i64, ptr %done seq_cst, align 8
  %all = icmp eq i64 %d, %l
  ret i1 %all
}}

; A phase shared with the workers.
define void @share(ptr %pool, ptr %args, ptr %phase, i64 %tiles, i64 %end) noinline {{
entry:
  {at(_STATE, "state")}
  {at(_PHASE, "phase.at")}
  {at(_ARGS, "args.at")}
  {at(_DONE, "done")}
  {at(_WAITING, "waiting")}
  %base = load atomic i64, ptr %done seq_cst, align 8
  %l = add i64 %base, %tiles
  store ptr %phase, ptr %phase.at
  store ptr %args, ptr %args.at
  %s = load atomic i64, ptr %state seq_cst, align 8
  %seq = lshr i64 %s, {2 * _BITS}
  %seq1 = add i64 %seq, 1
  %seq2 = shl i64 %seq1, {2 * _BITS}
  %last = shl i64 %tiles, {_BITS}
  %new = or i64 %seq2, %last
  store atomic i64 %new, ptr %state seq_cst, align 8
  %others = sub i64 %tiles, 1
  call void @ring(ptr %pool, i64 %others)
  call void @claim(ptr %pool, i64 %end)
  br label %wait
{wait_until("@complete(ptr %done, i64 %l)", "out", "done",
            [mark("waiting", 1)], [mark("waiting", 0)])}
out:
  ret void
}}

; A phase on this thread alone.
define void @alone(ptr %args, ptr %phase) {{
entry:
  %kernels = load i64, ptr %phase
  %first.at = getelementptr i64, ptr %phase, i64 2
  %first = load ptr, ptr %first.at
  br label %head
head:
  %k = phi i64 [ 0, %entry ], [ %k1, %after ]
  %kernel = phi ptr [ %first, %entry ], [ %following, %after ]
  %more = icmp slt i64 %k, %kernels
  br i1 %more, label %begin, label %out
begin:
  %fn = load ptr, ptr %kernel
  %map.at = getelementptr i64, ptr %kernel, i64 1
  %map = load ptr, ptr %map.at
  %count.at = getelementptr i64, ptr %kernel, i64 2
  %count = load i64, ptr %count.at
  %number.at = getelementptr i64, ptr %kernel, i64 3
  %number = load i64, ptr %number.at
  br label %tiles
tiles:
  %t = phi i64 [ 0, %begin ], [ %t1, %one ]
  %left = icmp slt i64 %t, %count
  br i1 %left, label %one, label %after
one:
  %tile = add i64 %number, %t
  call void %fn(ptr %args, ptr %map, i64 %tile)
  %t1 = add i64 %t, 1
  br label %tiles
after:
  %k1 = add i64 %k, 1
  %following = getelementptr i64, ptr %kernel, i64 4
  br label %head
out:
  ret void
}}

; All phases of a program, led by this thread; pool null: alone.
define i64 @perform(ptr %pool, ptr %program, i64 %end) {{
entry:
  %args = load ptr, ptr %program
  %status = load ptr, ptr %args
  store i64 0, ptr %status
  %phases.at = getelementptr i64, ptr %program, i64 1
  %phases = load i64, ptr %phases.at
  %first = getelementptr i64, ptr %program, i64 2
  %single = icmp eq ptr %pool, null
  br label %head
head:
  %p = phi i64 [ 0, %entry ], [ %p1, %after ]
  %phase = phi ptr [ %first, %entry ], [ %following, %after ]
  %more = icmp slt i64 %p, %phases
  br i1 %more, label %begin, label %out
begin:
  %tiles.at = getelementptr i64, ptr %phase, i64 1
  %tiles = load i64, ptr %tiles.at
  %one = icmp slt i64 %tiles, 2
  %many = icmp sgt i64 %tiles, {MOST_TILES}
  %here0 = or i1 %one, %single
  %here = or i1 %here0, %many
  br i1 %here, label %solo.phase, label %shared.phase
solo.phase:
  call void @alone(ptr %args, ptr %phase)
  br label %after
shared.phase:
  call void @share(ptr %pool, ptr %args, ptr %phase, i64 %tiles, i64 %end)
  br label %after
after:
  ; a phase that has met a bad index is the last: nothing is overwritten with what comes of it
  %bad = load i64, ptr %status
  %fine = icmp eq i64 %bad, 0
  %p1 = add i64 %p, 1
  %following = getelementptr i64, ptr %phase, i64 3
  br i1 %fine, label %head, label %out
out:
  %result = load i64, ptr %status
  ret i64 %result
}}

define i64 @run(ptr %pool, ptr %program) {{
entry:
  %solo = icmp eq ptr %pool, null
  br i1 %solo, label %alone, label %take
take:
  ; a pool that another thread is launching on is not waited for
  {at(OWNER, "owner")}
  %swap = cmpxchg ptr %owner, i64 0, i64 1 seq_cst seq_cst, align 8
  %taken = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %taken, label %shared, label %alone
shared:
  %a = call i64 @perform(ptr %pool, ptr %program, i64 {FRONT})
  store atomic i64 0, ptr %owner seq_cst, align 8
  ret i64 %a
alone:
  %b = call i64 @perform(ptr null, ptr %program, i64 {FRONT})
  ret i64 %b
}}

define i64 @begin(ptr %pool, ptr %program) {{
entry:
  {at(OWNER, "owner")}
  {at(_REQUEST, "request")}
  {at(_FINISHED, "finished")}
  %swap = cmpxchg ptr %owner, i64 0, i64 1 seq_cst seq_cst, align 8
  %taken = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %taken, label %hand, label %no
hand:
  store atomic i32 0, ptr %finished seq_cst, align 4
  %word = ptrtoint ptr %program to i64
  store atomic i64 %word, ptr %request seq_cst, align 8
  call void @ring(ptr %pool, i64 1)
  ret i64 1
no:
  ret i64 0
}}

; Whether there is something to do for the thread that joins, or nothing any more.
define i1 @joinable(ptr %pool) alwaysinline {{
  {at(_FINISHED, "finished")}
  %f = load atomic i32, ptr %finished seq_cst, align 4
  %over = icmp ne i32 %f, 0
  %some = call i1 @some(ptr %pool)
  %any = or i1 %over, %some
  ret i1 %any
}}

define i64 @join(ptr %pool) {{
entry:
  {at(_FINISHED, "finished")}
  {at(_WAITER, "waiter")}
  {at(_RESULT, "result")}
  {at(OWNER, "owner")}
  {at(_EPOCH, "epoch")}
  {at(_SLEEPERS, "sleepers")}
  br label %help
help:
  call void @lead(ptr %pool, i64 {FRONT})
  call void @claim(ptr %pool, i64 {FRONT})
  %f = load atomic i32, ptr %finished seq_cst, align 4
  %over = icmp ne i32 %f, 0
  br i1 %over, label %out, label %wait
{wait_until("@joinable(ptr %pool)", "help", "epoch",
            [mark("waiter", 1), lie_down], [get_up, mark("waiter", 0)])}
out:
  %status = load atomic i64, ptr %result seq_cst, align 8
  store atomic i64 0, ptr %owner seq_cst, align 8
  ret i64 %status
}}
"""
