"""The server's definitions and calls, as its syntax trees have them.

What a name, a call or a variable means is told as far as the sources write it down; nothing is
imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "quantd_server"
CLIENT_ROOMS = ("cli",)
"""They show what servers say, and say nothing over the wire."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Scope:
    """Where an expression stands."""

    module: str
    definitions: tuple[Definition, ...] = ()
    """Classes and functions around it, the outermost first."""

    @property
    def class_name(self) -> str | None:
        """Qualified name of the class around it."""
        for depth in range(len(self.definitions), 0, -1):
            if isinstance(self.definitions[depth - 1], ast.ClassDef):
                return ".".join((self.module, *(each.name for each in self.definitions[:depth])))
        return None


class Sources:
    """All definitions of the server by their qualified names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[ast.Call, Scope]] = []
        self.definitions: dict[str, tuple[Definition, Scope]] = {}
        self._names: dict[str, dict[str, str]] = {}
        self._module_types: dict[tuple[str, str], ast.expr] = {}
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder)
            if relative.parts[0] in CLIENT_ROOMS:
                continue
            parts = [part for part in relative.with_suffix("").parts if part != "__init__"]
            module = ".".join((PACKAGE, *parts))
            self._names[module] = {}
            self._read(ast.parse(path.read_text(encoding="utf-8")), Scope(module))
        self._by_last_name: dict[str, list[str]] = {}
        for name in self.definitions:
            self._by_last_name.setdefault(name.rpartition(".")[2], []).append(name)
        self.calls_of: dict[str, list[tuple[ast.Call, Scope]]] = {}
        """By what they may call."""
        for call, scope in self.calls:
            for name in self._callees(call, scope):
                self.calls_of.setdefault(name, []).append((call, scope))

    def _read(self, node: ast.AST, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names = (scope.module, *(each.name for each in scope.definitions), child.name)
                self.definitions[".".join(names)] = (child, scope)
                self._names[scope.module].setdefault(child.name, ".".join(names))
                inner = Scope(scope.module, (*scope.definitions, child))
            elif isinstance(child, ast.ImportFrom) and child.module:
                for name in child.names:
                    local = name.asname or name.name
                    self._names[scope.module][local] = f"{child.module}.{name.name}"
            elif isinstance(child, ast.AnnAssign) and not scope.definitions:
                self._module_types[scope.module, ast.unparse(child.target)] = child.annotation
            elif isinstance(child, ast.Call):
                self.calls.append((child, scope))
            self._read(child, inner)

    def resolve(self, module: str, name: str) -> str | None:
        """Qualified name of the definition that ``name`` means in ``module``."""
        while (found := self._names.get(module, {}).get(name)) not in self.definitions:
            if found is None or found.rpartition(".")[0] == module:
                return None
            module, _, name = found.rpartition(".")
        return found

    def place(self, node: ast.expr, scope: Scope) -> str:
        """Path and line of ``node``, for people."""
        path = scope.module.removeprefix(f"{PACKAGE}.").replace(".", "/")
        is_package = (self.folder / path).is_dir()
        return f"{path}/__init__.py:{node.lineno}" if is_package else f"{path}.py:{node.lineno}"

    def bases(self, name: str) -> Iterator[str]:
        """The class and those it inherits from."""
        yield name
        node, scope = self.definitions[name]
        for base in node.bases if isinstance(node, ast.ClassDef) else ():
            found = self.resolve(scope.module, base.id) if isinstance(base, ast.Name) else None
            if found is not None:
                yield from self.bases(found)

    def method(self, class_name: str, name: str) -> str | None:
        """The method of that name of a class, inherited or not."""
        own = (f"{base}.{name}" for base in self.bases(class_name))
        return next((method for method in own if method in self.definitions), None)

    def parameters(self, name: str) -> dict[str, ast.expr | None]:
        """What a function takes, or a class in making an instance, with the defaults."""
        node, _ = self.definitions[name]
        if isinstance(node, ast.ClassDef):
            if init := self.method(name, "__init__"):
                return self.parameters(init)
            fields = {}
            for base in reversed([*self.bases(name)]):
                for line in self.definitions[base][0].body:
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                        fields[line.target.id] = line.value
            return fields
        positional = [*node.args.posonlyargs, *node.args.args]
        found: dict[str, ast.expr | None] = {each.arg: None for each in positional}
        if node.args.defaults:
            defaulted = positional[-len(node.args.defaults) :]
            found |= {
                each.arg: value for each, value in zip(defaulted, node.args.defaults, strict=True)
            }
        found |= {
            each.arg: value
            for each, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        }
        if self._is_method(name):
            found.pop(next(iter(found)), None)  # self
        return found

    def _is_method(self, name: str) -> bool:
        node, scope = self.definitions[name]
        decorators = [each.id for each in node.decorator_list if isinstance(each, ast.Name)]
        return (
            bool(scope.definitions)
            and isinstance(scope.definitions[-1], ast.ClassDef)
            and "staticmethod" not in decorators
        )

    def type_of(self, name: str, scope: Scope) -> str | None:
        """The class that a variable is said to be of, or the source of a loop to hold."""
        if name in {"self", "cls"}:
            return scope.class_name
        functions = [each for each in scope.definitions if not isinstance(each, ast.ClassDef)]
        for node in reversed(functions):
            for inner in ast.walk(node):
                said, module = self._said_of(name, inner, scope.module)
                for part in ast.walk(said) if said is not None else ():
                    if isinstance(part, ast.Name):
                        found = self.resolve(module, part.id)
                        if found and isinstance(self.definitions[found][0], ast.ClassDef):
                            return found
        return None

    def _said_of(self, name: str, node: ast.AST, module: str) -> tuple[ast.expr | None, str]:
        """The expression in which ``node`` tells the type of a variable, and its module."""
        match node:
            case ast.arg(arg=target, annotation=said) if target == name:
                return said, module
            case ast.AnnAssign(target=ast.Name(id=target), annotation=said) if target == name:
                return said, module
            case ast.ExceptHandler(name=target, type=said) if target == name:
                return said, module
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Call(func=ast.Name() as said)):
                return (said if target == name else None), module
            case (
                ast.For(target=ast.Name(id=target), iter=source)
                | ast.comprehension(target=ast.Name(id=target), iter=source)
            ) if target == name:
                if isinstance(source, ast.Name):
                    return self._module_types.get((module, source.id)), module
                if isinstance(source, ast.Call) and isinstance(source.func, ast.Name):
                    found = self.resolve(module, source.func.id)
                    if found is not None:
                        maker, place = self.definitions[found]
                        said = maker.returns if isinstance(maker, ast.FunctionDef) else None
                        return said, place.module
        return None, module

    def _callees(self, call: ast.Call, scope: Scope) -> Iterator[str]:
        """The definitions that a call may mean: all of that name where the object is unknown."""
        function = call.func
        if isinstance(function, ast.Name):
            found = self.resolve(scope.module, function.id)
            if function.id == "cls":
                found = scope.class_name
            if found is not None:
                yield self.maker(found)
        elif isinstance(function, ast.Attribute):
            owner = function.value
            if isinstance(owner, ast.Call) and is_name(owner.func, "super"):
                bases = [*self.bases(scope.class_name or "")][1:]
                yield from filter(None, (self.method(base, function.attr) for base in bases[:1]))
                return
            known = self.type_of(owner.id, scope) if isinstance(owner, ast.Name) else None
            if known is not None and (method := self.method(known, function.attr)):
                yield method
                return
            yield from map(self.maker, self._by_last_name.get(function.attr, ()))

    def maker(self, name: str) -> str:
        """What a call of ``name`` runs: of a class, its own way of making instances."""
        is_class = isinstance(self.definitions[name][0], ast.ClassDef)
        return (self.method(name, "__init__") or name) if is_class else name

    def arguments(self, call: ast.Call, target: str) -> dict[str, ast.expr | None]:
        """What ``call`` hands to each parameter of ``target``, defaults included."""
        found = self.parameters(target)
        names = list(found)
        for name, value in zip(names, call.args, strict=False):
            found[name] = value
        return found | {each.arg: each.value for each in call.keywords if each.arg in found}


def is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
