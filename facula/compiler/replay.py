"""Replaying: a captured call written out as one straight-line function.

The function checks what the call depends on, gathers the memory of what it reads, launches its
programs and hands their results out.  What each of these steps has to do was settled when the
call was captured, so it is written as text once and compiled, like the launch of a program.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from facula.compiler.capture import Capture, Place, freed
from facula.compiler.entry import EXCLUSIVE, Entry, code, flags
from facula.compiler.text import Text, parameter_names
from facula.compiler.world import ATOMS
from facula.graph.tape import Draw, Update
from facula.storage import Storage
from facula.tensor import Tensor

__all__ = ["Entry", "build"]

_VALUES = (dict.values,)
_SIMPLE = frozenset(("_node", "_rg", "_taken", "_version", "_leaf", "_path", "_strides", "_offset",
                     "_detached", "_retain", "_storage", "_base", "_grad"))


class _Refuse(Exception):
    """What came of the call cannot be made again."""


def build(c: Capture) -> Entry | list[str]:
    """The replay of a capture, or why there is none."""
    if c.reasons:
        return c.reasons
    try:
        return _Builder(c).entry
    except _Refuse as reason:
        return [str(reason)]


class _Builder:
    def __init__(self, c: Capture):
        self.c = c
        self.t = Text(c)
        self.entry = Entry(c)
        self.written: dict[Place, tuple[tuple[int, int], int]] = {}
        self.grads: dict[Place, Tensor | None] = {}
        self.fresh: dict[int, str] = {}         # id of a new tensor -> its variable
        self.nodes: dict[int, str] = {}         # id of a new node or storage -> its variable
        self.kept: list[Any] = []
        self.fresh_nodes: set[str] = set()
        self.guarded: set[Place] = set()
        self.reused: dict[int, tuple[str, tuple[int, int]]] = {}
        self.effects()
        self.used = {s[1] for f in c.tape.flushes for s in f.sources if s[0] == "entry"}
        self.donated = {f.sources[k][1] for f in c.tape.flushes for k in f.donated
                        if f.sources[k][0] == "entry"}
        self.storages()
        self.entry.written, self.entry.graded = sorted(self.written), sorted(self.grads)
        self.write()

    # -- what the call did to tensors that were there before
    def effects(self) -> None:
        c = self.c
        for place, t in c.places.items():
            before = c.before[place]
            name = self.name(place)
            if t._rg is not before.rg or t._leaf is not before.leaf:
                raise _Refuse(f"requires_grad of {name} changes")
            if place[0] in "TA" and t._grad is not before.grad:
                self.grads[place] = t._grad
            if t._path:
                if t._storage is not None and t._storage.version != before.storage_version:
                    raise _Refuse(f"{name}, a view, is written to")
                continue
            if t._storage is not before.storage and before.storage is not None:
                raise _Refuse(f"{name} is given other memory")
            now = t._storage.version if t._storage is not None else t._version
            was = before.storage_version if before.storage is not None else before.version
            if t._node is before.node():
                if now != was:
                    raise _Refuse(f"{name} is given other memory")
                continue
            made = c.tape.made.get(id(t._node))
            if made is None or made[0]() is not t._node or now <= was:
                raise _Refuse(f"{name} is given the value of another tensor")
            if t._rg and not t._leaf:
                raise _Refuse(f"{name}, which has a history, is written to")
            self.written[place] = (made[1][1:], now - was)
        for place, t in c.places.items():
            if (place in self.written or place[0][0] == "A") and c.rec.grad and t._rg \
                    and not t._leaf and not place[0].endswith("G"):
                raise _Refuse(f"{self.name(place)} carries gradients on to what it came from")
            if t._leaf and t._rg and (t._hooks or t._post_hooks):
                raise _Refuse(f"{self.name(place)} has gradient hooks")

    def name(self, place: Place) -> str:
        kind, i = place
        text = self.c.world.names[i] if kind[0] == "T" \
            else self.c.labels.get(("A", i), f"argument {i}")
        return f"{text}.grad" if kind.endswith("G") else text

    def storages(self) -> None:
        """Tensors that share memory are known to each other only if none of them is written."""
        by: dict[int, list[Place]] = {}
        for place in self.used | set(self.written):
            s = self.c.places[place]._storage
            if s is not None and self.c.before[place].storage is not None:
                by.setdefault(id(s), []).append(place)
        for places in by.values():
            if len(places) > 1 and any(p in self.written for p in places):
                raise _Refuse(f"{self.name(places[0])} and {self.name(places[1])} share memory, "
                              "and one of them is written to")

    # -- the text
    def write(self) -> None:
        c, t = self.c, self.t
        t.lines += ["def replay(args, kwargs, rec):", "    try:"]
        t.miss(f"len(args) != {len(c.args)}",
               f"{{}} arguments are given by position, and not {len(c.args)}", "len(args)")
        t.miss(f"rec.grad is not {c.grad_mode}",
               f"the gradient mode is {{}}, and was {c.grad_mode}", "rec.grad")
        if not c.kwargs:
            t.miss("kwargs", "arguments are given by name ({})", "kwargs")
        names = parameter_names(c.fn, len(c.args))
        for n, value in enumerate(c.args):
            t.argument(f"args[{n}]", value, names[n])
        if c.kwargs:
            t.argument("kwargs", c.kwargs, "the arguments by name")
        t.put("g = rec.graph")
        t.put("if g.leaves or g.handles or flight.current is not None: settle(rec)")
        self.quick()
        for place in sorted(self.used | set(self.written)):
            self.gather(place)
        self.between()
        t.lines += ["    except (LookupError, AttributeError, TypeError):", "        return MISS"]
        self.entry.guards = t.explanation() + "\n    return 1 << 30, ''"
        self.entry.scope = t.scope
        self.counts()
        for place, g in self.grads.items():
            old = (f"{place[0]}G", place[1])
            if old in c.places and old not in self.used and old not in self.written:
                self.reuse(place, c.places[old], g)
        self.launches()
        self.hand_out()
        text = "\n".join(t.lines)
        exec(code(text), t.scope)
        self.entry.replay = t.scope["replay"]
        self.entry.saved, self.entry.sizes = self.entry.collect()
        self.entry.text = text                  # type: ignore[attr-defined]

    def quick(self) -> None:
        """What Python depends on, compared by identity in one go."""
        c, t = self.c, self.t
        for i, x in enumerate(c.world.tensors):
            place = ("T", i)
            if place in c.places and (place in self.used or place in self.written or x._leaf):
                none = c.before[place].grad is None
                t.miss(f"{t.tensor(place)}._grad {'is not' if none else 'is'} None",
                       f"{self.name(place)}.grad is {{}}, and was "
                       f"{'None' if none else 'a tensor'}", f"{t.tensor(place)}._grad")
        exprs, names = ["promote._default"], ["the default dtype"]
        for i, x in enumerate(c.world.tensors):
            place = ("T", i)
            if place not in c.places or not (place in self.used or place in self.written
                                             or place in self.grads or x._leaf):
                continue
            e = t.tensor(place)
            if x._leaf and c.before[place].storage is not None:
                x._guarded = True
                self.guarded.add(place)
                self.entry.guarded.append((c.world.names[i], x, flags(x)))
                continue
            x._guarded = True
            self.entry.guarded.append((c.world.names[i], x, flags(x)[:5]))
            exprs.append(f"{e}._rg")
            names.append(f"requires_grad of {c.world.names[i]}")
            if c.before[place].storage is not None:
                exprs.append(f"{e}._storage")
                names.append(f"the memory of {c.world.names[i]}")
        sizes: list[str] = []
        whole = Counter(id(cell.holder) for cell in c.world.cells
                        if cell.quick and cell.kind == "item"
                        and getattr(type(cell.holder), "values", None) in _VALUES
                        and (id(cell.holder), cell.key) not in c.exempt)
        for cell in c.world.cells:
            if not cell.quick or (id(cell.holder), cell.key) in c.exempt:
                continue
            if cell.kind == "item" and whole[id(cell.holder)] == len(cell.holder) > 1:
                exprs.append(f"*{t.const(cell.holder)}.values()")
                whole[id(cell.holder)] = -1
            if whole[id(cell.holder)] == -1 and cell.kind == "item":
                continue
            (sizes if cell.kind in ("size", "set", "attributes") else exprs).append(t.quick(cell))
        self.entry.flags = names
        t.scope["E"] = self.entry
        tests = ", ".join(exprs) + ","
        size = ", ".join(sizes) + ("," if sizes else "")
        t.put(f"if changes[0] != E.epoch or not all(map(is_, ({tests}), E.saved)) \\")
        t.put(f"        or ({size}) != E.sizes:")
        t.whys[len(t.lines)] = "{}", ("Said(E.missed)",)
        t.put("    if not E.recheck(): return MISS")
        scope = t.scope
        exec(f"def collect(): return ({tests}), ({size})", scope)
        self.entry.collect = scope["collect"]

    def gather(self, place: Place) -> None:
        """The memory of one tensor, in v<name>, with its node in n<name>."""
        c, t = self.c, self.t
        before, x = c.before[place], self.var(place)
        expr = t.tensor(place)
        name = self.name(place)
        held = (f"the memory of {name}, which the call overwrites, is also held by somebody else "
                "(a view, an array of NumPy's, another tensor)")
        if place in self.guarded and place in self.donated and before.strides is None:
            # The flags, the path and the storage can only change when `changes` does.
            t.scope[x], t.scope[f"s_{x}"] = c.places[place], before.storage
            t.put(f"n_{x} = {x}._node")
            t.put(f"if s_{x}.version != {x}._version: refresh(rec, {x}); n_{x} = {x}._node")
            t.put(f"v_{x} = n_{x}.value")
            t.miss(f"type(v_{x}) is not Buffer or v_{x}.shared or s_{x}.node is not n_{x} "
                   f"or refs(n_{x}) != {EXCLUSIVE + 1} or n_{x}.strides is not None", held)
            return
        if expr != x:
            t.put(f"{x} = {expr}")
        if self.alone(place):
            t.scope[x] = c.places[place]
            t.put(f"n_{x} = {x}._node; v_{x} = n_{x}.value")
            t.miss(f"type(v_{x}) is not Buffer or v_{x}.shared or {x}._storage is not None "
                   f"or refs(n_{x}) != {EXCLUSIVE} or n_{x}.strides is not None "
                   f"or n_{x}.spec is not {t.const(before.spec)}", held)
            return
        if place[0].endswith("G"):
            t.miss(f"{x}._rg is not {before.rg} or {x}._hooks",
                   f"requires_grad or the hooks of {name} change")
        t.put(f"s_{x} = {x}._storage")
        t.put(f"if s_{x} is not None and s_{x}.version != {x}._version: refresh(rec, {x})")
        t.put(f"n_{x} = {x}._node")
        t.put(f"v_{x} = n_{x}.value")
        strides = t.const(before.strides)
        t.miss(f"n_{x}.spec is not {t.const(before.spec)}",
               f"{name} is {{}}, and was of {before.spec!r}", x)
        test = f"type(v_{x}) is not Buffer or v_{x}.shared or n_{x}.strides != {strides}"
        if place in self.written or place in self.donated:
            t.miss(test, held)
            t.miss(f"{x}._path", f"{name} is a view now, and was none")
            if place in self.donated:
                t.miss(f"refs(n_{x}) != ({EXCLUSIVE} if s_{x} is None else {EXCLUSIVE + 1}) "
                       f"or s_{x} is not None and s_{x}.node is not n_{x}", held)
        else:
            t.put(f"if {test}:")
            t.put(f"    v_{x} = odd({x}, n_{x}, {strides})")
            t.whys[len(t.lines)] = f"the layout in memory of {name} is another", ()
            t.put(f"    if v_{x} is None: return MISS")

    def alone(self, place: Place) -> bool:
        """Is this a tensor of the world that nothing aliases, overwritten in place?"""
        before = self.c.before[place]
        return place[0] == "T" and place in self.donated and before.storage is None \
            and before.strides is None and self.c.places[place]._storage is None

    def var(self, place: Place) -> str:
        return {"T": "t", "A": "a", "TG": "tg", "AG": "ag"}[place[0]] + str(place[1])

    def between(self) -> None:
        """How arguments stand to each other and to what is written."""
        c, t = self.c, self.t
        active = self.used | set(self.written)
        for a, b in c.aliases:
            if a in active or b in active:
                t.miss(f"{t.tensor(a)}._node is not {t.tensor(b)}._node",
                       f"{self.name(a)} and {self.name(b)} are not the same value now")
        written = sorted(self.written)
        given = [("A", j) for j in range(len(c.given))]
        for place in given:
            rest = [p for p in written if p != place]
            if not rest:
                continue
            x = self.var(place)
            tests = " or ".join(
                f"{x} is {self.var(p)}" if self.alone(p) else
                f"{x} is {self.var(p)} or {x}._storage is s_{self.var(p)} is not None"
                for p in rest)
            others = rest
            if place[0] == "A" and len(others) > 3:
                # Without an alias there is nothing to compare.
                tests = (f"{x}._storage is not None and ({tests})" if all(
                    p[0][0] == "T" for p in written if p != place) else tests)
            t.miss(tests, f"{self.name(place)} shares memory with what the call writes to")

    def counts(self) -> None:
        """What optimisers compute in Python, and random streams; nothing is guarded after it."""
        c, t = self.c, self.t
        updates = [(e, u) for e, u in enumerate(c.tape.effects) if isinstance(u, Update)]
        if any(u.states[0] is not None for _, u in updates):
            t.put("undo = []", 1)
        for e, u in updates:
            opt, group = t.const(u.optimizer), t.const(u.group)
            if u.states[0] is None:
                t.put(f"b{e} = 0", 1)
                continue
            keys = tuple(k for k, v in u.states[0].items() if not isinstance(v, Tensor)
                         and (id(u.states[0]), k) in c.exempt)
            t.put(f"b{e} = advance(undo, {opt}.bucket, {group}, {t.const(u.states)}, "
                  f"{t.const(keys)})", 1)
            t.put(f"if b{e} is MISS: return MISS", 1)
        for e, u in updates:
            t.put(f"e{e} = {t.const(u.optimizer)}.numbers({t.const(u.group)}, b{e})", 1)
        for e, d in enumerate(c.tape.effects):
            if isinstance(d, Draw):
                t.put(f"e{e} = signed({t.const(d.generator)}._advance({d.words}))", 1)

    def launches(self) -> None:
        """Run the programs; the last one may be left running in the background."""
        c, t = self.c, self.t
        owners = ", ".join(t.tensor(p) for p in self.grads)
        t.put(f"late = Late(rec, ({owners}{',' if owners else ''}))", 1)
        t.put("try:", 1)
        for k, f in enumerate(c.tape.flushes):
            values = ", ".join(self.value(s) for s in f.sources)
            given = {f.made[j][1]: f"w_{g}" for g, (n, j) in self.reused.values()
                     if n == k and [m[1] for m in f.made].count(f.made[j][1]) == 1}
            slots = ", ".join(given.get(n, "None") for n in range(len(f.program.outputs)))
            last = ", late" if k == len(c.tape.flushes) - 1 else ""
            run = f"run_into([{values}], ({slots},){last})" if given else f"run([{values}]{last})"
            t.put(f"o{k} = {t.const(f.program)}.{run}", 2)
        t.put("pass", 2)
        t.put("except BaseException:", 1)
        t.put("late.drop()", 2)
        t.put("raise", 2)

    def value(self, source: tuple[Any, ...]) -> str:
        if source[0] == "entry":
            return f"v_{self.var(source[1])}"
        if source[0] == "number":
            return f"e{source[1]}[{source[2]}]"
        if source[0] == "made":
            return self.output(source[1], source[2])
        return self.t.const(source[1])

    def output(self, flush: int, k: int) -> str:
        _, slot, twice = self.c.tape.flushes[flush].made[k]
        text = f"o{flush}[{slot}]"
        if twice:
            spec = self.c.tape.flushes[flush].program.outputs[slot]
            raise _Refuse(f"output {spec} is handed out twice")
        return text

    def reuse(self, place: Place, old: Tensor, new: Tensor | None) -> None:
        """A gradient that is replaced unread: if nobody else holds it, it is used again."""
        c, t, g = self.c, self.t, f"g{len(self.reused)}"
        owner = t.tensor(place)
        made = None if new is None else c.tape.made.get(id(new._node))
        plain = new is not None and made is not None and type(new) is Tensor \
            and new._storage is None and set(new.__dict__) <= {"_node", "_taken", "_rg"} \
            and not new._rg and new._node.origin is None
        if not plain or new is None or made is None or id(new) in self.reused:
            t.put(f"{owner}._grad = None", 1)
            return
        self.reused[id(new)] = g, made[1][1:]
        spec = t.const(new._node.spec)
        t.put(f"{g} = {owner}._grad; k_{g} = {g}._node; w_{g} = k_{g}.value", 1)
        t.put(f"if refs({g}) != {EXCLUSIVE} or refs(k_{g}) != {EXCLUSIVE} or type(w_{g}) is not "
              f"Buffer \\", 1)
        t.put(f"        or w_{g}.shared or refs(w_{g}) != {EXCLUSIVE} or {g}._storage is not "
              f"None \\", 1)
        t.put(f"        or {g}._rg or {g}._version or k_{g}.spec is not {spec} "
              f"or k_{g}.strides is not None:", 1)
        t.put(f"    {g} = new(Tensor); {g}._node = k_{g} = Node(NOWHERE, {spec}); w_{g} = None", 1)
        t.put(f"    {g}._taken = True; {owner}._grad = None", 1)

    # -- results
    def hand_out(self) -> None:
        c, t = self.c, self.t
        for place, ((flush, k), versions) in sorted(self.written.items()):
            x, buffer = self.var(place), self.output(flush, k)
            self.nodes[id(c.places[place]._node)] = f"n_{x}"
            if place in self.donated:
                t.put(f"n_{x}.value = {buffer}", 1)
            else:
                t.put(f"old, n_{x} = n_{x}, Node(NOWHERE, n_{x}.spec, {buffer})", 1)
                t.put("old.stale = ('a compiled call', -1, 0)", 1)
                if c.before[place].rg:
                    t.put(f"n_{x}.leaf = old.leaf", 1)
                t.put(f"{x}._node = n_{x}", 1)
                t.put(f"if s_{x} is not None: s_{x}.node = n_{x}", 1)
            if place in self.guarded and place in self.donated and c.before[place].strides is None:
                t.put(f"s_{x}.version += {versions}; {x}._version = s_{x}.version", 1)
                continue
            if self.alone(place):
                t.put(f"{x}._version += {versions}", 1)
                continue
            t.put(f"if s_{x} is None: {x}._version += {versions}", 1)
            t.put(f"else: s_{x}.version += {versions}; {x}._version = s_{x}.version", 1)
        for key, (used, where) in self.reused.items():
            self.fresh[key] = used
            t.put(f"k_{used}.value = {self.output(*where)}", 1)
        for place, g in self.grads.items():
            if g is not None and id(g) in self.reused:
                self.nodes[id(g._node)] = f"k_{self.reused[id(g)][0]}"
        for place, g in self.grads.items():
            value = "None" if g is None else self.make(g)
            t.put(f"{t.tensor(place)}._grad = {value}", 1)
        result = self.structure(c.result)
        self.account()
        fresh = {v for v in self.nodes.values() if v[0] == "k"} | self.fresh_nodes
        if fresh:
            t.put(f"late.nodes = ({', '.join(sorted(fresh))},)", 1)
        t.put(f"return {result}", 1)

    def structure(self, value: Any) -> str:
        kind = type(value)
        if isinstance(value, Tensor):
            return self.make(value)
        if kind is dict:
            return "{" + ", ".join(f"{self.t.const(k)}: {self.structure(v)}"
                                   for k, v in value.items()) + "}"
        if kind is list:
            return "[" + ", ".join(map(self.structure, value)) + "]"
        if isinstance(value, tuple):
            parts = [self.structure(v) for v in value]
            if kind is tuple:
                return "(" + ", ".join(parts) + ("," if len(parts) == 1 else "") + ")"
            return f"{self.t.const(kind)}({', '.join(parts)})"
        if kind in ATOMS or id(value) in self.c.world.seen:
            return self.t.const(value)
        raise _Refuse(f"it returns a {kind.__name__}, which is made anew by each call")

    def make(self, x: Tensor) -> str:
        """A tensor as it is after the call: one from before, or made by it."""
        c, t = self.c, self.t
        for place, known in c.places.items():
            if known is x:
                if place[0].endswith("G") and (place[0][0], place[1]) in self.grads:
                    raise _Refuse("a gradient from before the call is used after it is replaced")
                return t.tensor(place)
        found = self.fresh.get(id(x))
        if found is not None:
            return found
        name = self.fresh[id(x)] = f"r{len(self.fresh)}"
        self.kept.append(x)
        state = x.__dict__
        if not state.get("_rg", True):          # as the class says, whoever made the tensor
            state = {k: v for k, v in state.items() if k != "_rg"}
        if type(x) is not Tensor or not _SIMPLE.issuperset(state):
            raise _Refuse(f"it makes a {type(x).__name__}, or a tensor with hooks or attributes")
        t.put(f"{name} = new(Tensor)", 1)
        t.put(f"{name}._node = {self.node(x)}", 1)
        for key, value in state.items():
            if key == "_storage" and value is not None:
                t.put(f"{name}._storage = {self.storage(value)}", 1)
            elif key in ("_base", "_grad") and value is not None:
                t.put(f"{name}.{key} = {self.make(value)}", 1)
            elif key not in ("_node", "_storage", "_base", "_grad"):
                t.put(f"{name}.{key} = {t.const(value)}", 1)
        if x._leaf and x._rg:
            t.put(f"{name}._own_leaf()", 1)
        return name

    def node(self, x: Any) -> str:
        """The variable of a node that the call made."""
        t, node = self.t, x._node if isinstance(x, Tensor) else x.node
        found = self.nodes.get(id(node))
        if found is not None:
            return found
        for place, known in self.c.before.items():
            if known.node() is node:
                if place in self.used:
                    return f"n_{self.var(place)}"
                return f"{t.tensor(place)}._node"
        made = self.c.tape.made.get(id(node))
        if made is None or made[0]() is not node:
            raise _Refuse("it returns a value that was not computed by it")
        if node.origin is not None and not freed(node):
            raise _Refuse("a value that gradients can still flow from outlives the call")
        name = self.nodes[id(node)] = f"m{len(self.nodes)}"
        self.fresh_nodes.add(name)
        self.kept.append(node)
        t.put(f"{name} = new(Node); {name}.at = NOWHERE; {name}.spec = {t.const(node.spec)}", 1)
        t.put(f"{name}.value = {self.output(*made[1][1:])}", 1)
        if freed(node):
            t.put(f"{name}.origin = FREED", 1)
        return name

    def storage(self, s: Storage) -> str:
        for place, before in self.c.before.items():
            if before.storage is s or self.c.places[place]._storage is s:
                raise _Refuse(f"it returns a view of {self.name(place)}")
        found = self.nodes.get(id(s))
        if found is None:
            node = self.node(s)
            found = self.nodes[id(s)] = f"m{len(self.nodes)}"
            self.kept.append(s)
            self.t.put(f"{found} = Storage({node}, {s.version}, {s.rg}, "
                       f"{self.t.const(s.strides)})", 1)
        return found

    def account(self) -> None:
        """Every value that outlives the call must be one that a replay hands out."""
        for f in self.c.tape.flushes:
            for ref, _, _ in f.made:
                node = ref()
                if node is not None and id(node) not in self.nodes:
                    raise _Refuse(f"a tensor of shape {list(node.spec.shape)} is kept somewhere "
                                  "that cannot be seen from the function")
