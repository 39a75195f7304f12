"""Every field and every array of a certificate, changed in every way, with digests that fit."""

from __future__ import annotations

import copy
import json

import numpy as np

from thalweg.certificates.store import digests

# What the checker does not speak of, and says so: names, and texts beside the claim.
FREE = ("name", "entry", "settings", "problem", "numbers", "state")


def places(value, path=()):
    """List every place of a JSON value, those of tables and lists before what they hold."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in items:
        yield from places(part, (*path, key))


def field_changes(value):
    """Name ways to change a field, and what it becomes; numbers get stronger and weaker."""
    yield from (("null", None), ("text", "x"), ("truth", True), ("list", []), ("infinite", 1e999))
    yield "wrapped", [value]
    if isinstance(value, bool):
        yield "value", not value
    elif isinstance(value, int | float):
        for factor in (0.5, 0.991, 1.009, 2, -1):
            whole = isinstance(value, int) and factor in (2, -1)
            yield f"times {factor}", value * factor if whole else float(value) * factor
        yield from (
            ("beyond float64", 10**400),
            ("one more", value + 1),
            ("one less", value - 1),
            ("not a number", float("nan")),
        )
    elif isinstance(value, str):
        yield from (("longer", value + "1"), ("negative", "-" + value), ("empty", ""))
        yield from (("zero", "0"), ("fifty", "50"), ("tanh", "tanh"), ("relu", "relu"))
    elif isinstance(value, list) and value:
        yield from (("permuted", value[::-1]), ("shorter", value[:-1]), ("longer", [*value, 1]))
    elif isinstance(value, dict):
        yield "added", value | {"more": 1}


def field_mutants(content):
    """Change, drop and add at every place of the JSON."""
    for path in places(content):
        if not path or path[0] == "sha256":
            continue
        *above, key = path
        for how, new in [*field_changes(at(content, path)), ("dropped", ...)]:
            changed = copy.deepcopy(content)
            holder = at(changed, above)
            if new is ...:
                del holder[key]
            else:
                holder[key] = new
            yield f"{'/'.join(map(str, path))} {how}", changed


def at(value, path):
    for key in path:
        value = value[key]
    return value


def array_changes(a):
    """Name ways to change an array, and what it becomes."""
    middle = tuple(n // 2 for n in a.shape)

    def one(change):
        b = a.copy()
        b[middle] = change(b[middle])
        return b

    yield from (
        ("one entry", one(lambda v: v + 0.1)),
        ("last bit", one(lambda v: np.nextafter(v, 9))),
    )
    yield from (("sign", -a), ("one sign", one(lambda v: -v - 1e-3)), ("scale", 2 * a))
    yield from (("slightly", a * 1.001), ("shape", a[..., None]), ("flat", a.reshape(-1)))
    yield from (("single", a.astype(np.float32)), ("whole", np.rint(a).astype(np.int64)))
    yield from (("not a number", one(lambda v: np.nan)), ("infinite", one(lambda v: np.inf)))
    yield from (("reversed", a[::-1]), ("rolled", np.roll(a, 1, -1)), ("fewer", a[:-1]))
    yield from (("more", np.concatenate([a, a[:1]])), ("empty", a[:0]), ("zeros", 0 * a))
    yield from (("denormal", a * 1e-310), ("huge", a * 1e300), ("turned", a.T))


def array_mutants(arrays):
    for name, a in arrays.items():
        for how, changed in array_changes(a):
            yield f"{name} {how}", arrays | {name: np.ascontiguousarray(changed)}
        yield f"{name} dropped", {k: v for k, v in arrays.items() if k != name}
        yield f"{name} twice", arrays | {f"{name}.again": a}
    yield "added", arrays | {"9.weight": np.ones((1, 1))}


def mutants(content, arrays):
    """List all mutants of a certificate: a name, its JSON and its arrays."""
    for name, changed in field_mutants(content):
        yield name, changed, arrays
    for name, changed in array_mutants(arrays):
        yield name, content, changed


def write(path, content, arrays, *, fitting=True):
    """Write a mutant; its digests fit, as a forger would see to."""
    from safetensors.numpy import save_file

    save_file(arrays, path.with_suffix(".safetensors"))
    content = copy.deepcopy(content)
    if fitting and "sha256" in content:
        content["sha256"] = digests(content.get("network"), arrays)
    path.write_text(json.dumps(content))
