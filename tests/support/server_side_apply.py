"""Who owns which field of an object: Kubernetes' server-side apply, as far as maps go.

The rules are those of structured-merge-diff (its merge/update.go) and of Kubernetes' chapter "Server-Side Apply": an
apply conflicts with a different value of another owner's; a field that its last owner no longer applies goes, or falls
back to its default; any other write takes what it changes. Lists are one field here, which in Kubernetes often have
fields of their own: nothing that two managers share in a test may be in one.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple, TypeAlias

Object: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str, ...]

_IDENTITY = {"name", "namespace", "uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"}


class Manager(NamedTuple):
    """An entry of ``managedFields``."""

    name: str
    operation: str
    """``Apply`` or ``Update``."""
    subresource: str = ""

    def __str__(self) -> str:
        return f'"{self.name}"' + (f' with subresource "{self.subresource}"' if self.subresource else "")


Owned: TypeAlias = dict[Manager, set[Path]]


class Conflict(Exception):
    """An apply that would change what others own."""

    def __init__(self, found: list[tuple[Manager, Path]], version: str) -> None:
        told = [f"conflict with {manager} using {version}: .{'.'.join(path)}" for manager, path in found]
        number = f"{len(told)} conflict{'s' if len(told) > 1 else ''}"
        super().__init__(f"Apply failed with {number}: {', '.join(told)}")


def fields(tree: Object) -> set[Path]:
    """What may be owned: everything that is no map, but for what says which object it is."""
    found = {path for key in tree if key not in {"apiVersion", "kind", "status"} for path in _below(tree[key], (key,))}
    return {path for path in found if path[0] != "metadata" or path[1] not in _IDENTITY}


def _below(value: Any, path: Path) -> set[Path]:
    if not isinstance(value, dict) or not value:
        return {path}
    return {found for key, inner in value.items() for found in _below(inner, (*path, key))}


def apply(live: Object, owned: Owned, applied: Object, manager: Manager, *, force: bool) -> Object:
    """The object after an apply; ``owned`` follows.

    Raises:
        Conflict: without ``force``, for fields that others own with other values.
    """
    wanted = fields(applied)
    conflicts = [
        (other, path)
        for other, theirs in owned.items()
        for path in sorted(wanted & theirs)
        if other != manager and value_at(live, path) != value_at(applied, path)
    ]
    if conflicts and not force:
        raise Conflict(conflicts, applied["apiVersion"])
    for other, path in conflicts:
        owned[other].discard(path)
    after = deepcopy(live)
    others = set().union(*(theirs for other, theirs in owned.items() if other != manager))
    for path in owned.get(manager, set()) - wanted - others:
        _remove(after, path)
    for path in wanted:
        if (value := value_at(applied, path)) != {} or not isinstance(value_at(after, path), dict):
            _put(after, path, value)
    owned[manager] = wanted
    _forget(owned)
    return after


def update(before: Object, after: Object, owned: Owned, manager: Manager) -> None:
    """What a write that is no apply does to ``owned``."""
    there = fields(after)
    changed = {path for path in there if value_at(before, path) != value_at(after, path)}
    for other in owned:
        owned[other] &= there - (changed if other != manager else set())
    owned[manager] = owned.get(manager, set()) | changed
    _forget(owned)


def managed_fields(owned: Owned, version: str) -> list[Object]:
    """``metadata.managedFields``."""
    return [
        {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": version,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(paths),
        }
        | ({"subresource": manager.subresource} if manager.subresource else {})
        for manager, paths in owned.items()
    ]


def value_at(tree: Any, path: Path) -> Any:
    """None where there is nothing."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _put(tree: Object, path: Path, value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = deepcopy(value)


def _remove(tree: Object, path: Path) -> None:
    for key in path[:-1]:
        tree = tree.get(key, {})
    tree.pop(path[-1], None)


def _forget(owned: Owned) -> None:
    for manager in [manager for manager, paths in owned.items() if not paths]:
        del owned[manager]


def _tree(paths: set[Path]) -> Object:
    tree: Object = {}
    for path in paths:
        _put(tree, tuple(f"f:{key}" for key in path), {})
    return tree
