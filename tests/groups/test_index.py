"""Index arithmetic against the integers: quotients and remainders of random expressions."""

from __future__ import annotations

import itertools
import random

from facula.groups.index import Index, Var, const, flatten, loop_var, quotient, remainder, unflatten


def _at(index: Index, point: dict[str, int]) -> int:
    return index.offset + sum(c * _of(v, point) for v, c in index.terms)


def _of(var: Var, point: dict[str, int]) -> int:
    if var.kind == "loop":
        return point[var.args[0]]
    inner = _at(var.args[0], point)
    return inner // var.args[1] if var.kind == "div" else inner % var.args[1]


def test_division():
    rng = random.Random(0)
    for _ in range(1000):
        extents = [rng.choice([1, 2, 3, 4, 6, 8]) for _ in range(3)]
        loops = [loop_var(name, n) for name, n in zip("abc", extents, strict=True)]
        index = const(rng.choice([0, 0, 1, 5, 12]))
        for v in loops:
            index = index + v * rng.choice([1, 2, 3, 4, 6, 8, 12, 24, 48])
        if rng.random() < 0.3:
            index = remainder(index, rng.choice([2, 3, 12, 7])) * rng.choice([1, 4]) + loops[0]
        n = rng.choice([2, 3, 4, 5, 6, 7, 8, 12, 24, 48])
        q, r = quotient(index, n), remainder(index, n)
        whole = flatten((q, r), (n, 1))
        for point in itertools.product(*map(range, extents)):
            at = dict(zip("abc", point, strict=True))
            value = _at(index, at)
            assert (_at(q, at), _at(r, at), _at(whole, at)) == (*divmod(value, n), value)
            for found, exact in ((q, value // n), (r, value % n)):
                low, high = found.bounds()
                assert low <= exact <= high


def test_what_is_finer_than_the_divisor_has_no_part():
    # channels in groups of four, of 56 x 56 places: which group is told by the channel alone
    channel, place = loop_var("c", 32), loop_var("x", 3136, 1)
    at = unflatten(channel * 3136 + place, (8, 4 * 3136))
    assert at[0] == quotient(channel, 4)
    assert at[1] == remainder(channel, 4) * 3136 + place
