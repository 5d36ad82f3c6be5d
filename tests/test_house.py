"""The rules of the house that a reader relies on, checked on the syntax trees of src and bench; nothing is imported."""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_POSITIONAL = 5
MAX_MODULES_PER_FOLDER = 15
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 300
BANNED_WORDS = frozenset(
    "told said asked heard think heat beside taught lesson deserved living dense figures aside heeded".split()
)
SHARED_NAMES: frozenset[str] = frozenset()
"""Public names that two modules may define. Empty: protocol methods are no module-level names."""

Sources = Mapping[str, str]
"""Source text by path from the root of the repository."""
Scope = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parse(text: str) -> ast.Module:
    return ast.parse(text)


def read_sources(*folders: str) -> Sources:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def find_shared_names(sources: Sources) -> Iterator[str]:
    """Public names that two modules define at module level. Imported names are not defined there."""
    paths_by_name = defaultdict[str, set[str]](set)
    for path, text in sources.items():
        for name in _module_level_names(parse(text).body):
            paths_by_name[name].add(path)
    for name, paths in sorted(paths_by_name.items()):
        if len(paths) > 1 and not name.startswith("_") and name not in SHARED_NAMES:
            yield f"{name}: {', '.join(sorted(paths))}"


def _module_level_names(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Assign():
                yield from (n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If() | ast.Try():
                yield from _module_level_names([n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)])
            case _:
                pass


def find_star_tuples(sources: Sources) -> Iterator[str]:
    """Calls f(*(a, b)), and f(*args) where args is bound to a tuple literal. Tuples of names, all strings, may pass."""
    for path, text in sources.items():
        tree = parse(text)
        for scope in [tree, *_functions(tree)]:
            tuples = {name for name, value in _bindings(scope) if _is_mixed_tuple(value)}
            for node in _own_nodes(scope):
                if isinstance(node, ast.Call):
                    for starred in (argument for argument in node.args if isinstance(argument, ast.Starred)):
                        value = starred.value
                        if _is_mixed_tuple(value) or (isinstance(value, ast.Name) and value.id in tuples):
                            yield f"{path}: {ast.unparse(starred)}"


def _is_mixed_tuple(node: ast.expr | None) -> bool:
    if not isinstance(node, ast.Tuple):
        return False
    return not all(isinstance(item, ast.Constant) and isinstance(item.value, str) for item in node.elts)


def _bindings(scope: Scope) -> Iterator[tuple[str, ast.expr | None]]:
    for node in _own_nodes(scope):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                yield from ((t.id, v) for t, v in zip(targets, values, strict=False) if isinstance(t, ast.Name))
            case (
                ast.AnnAssign(target=ast.Name(id=name), value=value)
                | ast.NamedExpr(target=ast.Name(id=name), value=value)
            ):
                yield name, value
            case _:
                pass


def _own_nodes(scope: Scope) -> Iterator[ast.AST]:
    """The nodes of a scope, with those of nested functions: a closure may pass on a tuple bound outside."""
    return ast.walk(scope) if not isinstance(scope, ast.Module) else _outside_functions(scope)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function):
            yield from _outside_functions(child)


def _functions(tree: ast.Module) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def find_many_positionals(sources: Sources) -> Iterator[str]:
    """Functions with more positional parameters than a caller can keep in order; `self` and `cls` do not count."""
    for path, text in sources.items():
        for function in _functions(parse(text)):
            if "triton.jit" in map(ast.unparse, function.decorator_list):
                continue  # Triton compiles a kernel by its positional parameters and takes no keyword-only ones.
            names = [a.arg for a in [*function.args.posonlyargs, *function.args.args]]
            names = names[1:] if names[:1] in (["self"], ["cls"]) else names
            if len(names) > MAX_POSITIONAL:
                yield f"{path}: {function.name} has {len(names)}"


def find_full_folders(sources: Sources) -> Iterator[str]:
    """Folders with too many modules; an empty __init__.py does not count."""
    counts = defaultdict[str, int](int)
    for path, text in sources.items():
        counts[path.rpartition("/")[0]] += bool(text.strip()) or not path.endswith("__init__.py")
    return (f"{folder} has {count}" for folder, count in counts.items() if count > MAX_MODULES_PER_FOLDER)


def find_long_functions(sources: Sources) -> Iterator[str]:
    for path, text in sources.items():
        for function in _functions(parse(text)):
            num_lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if num_lines > MAX_FUNCTION_LINES:
                yield f"{path}: {function.name} has {num_lines}"


def find_long_files(sources: Sources) -> Iterator[str]:
    for path, text in sources.items():
        if (num_lines := len(text.splitlines())) > MAX_FILE_LINES:
            yield f"{path} has {num_lines}"


def find_banned_words(sources: Sources) -> Iterator[str]:
    """Identifiers that bear a banned word, alone or between underscores or capitals; and files named after one."""
    for path, text in sources.items():
        identifiers = {*_identifiers(parse(text)), Path(path).stem}
        for name in sorted(identifiers):
            if BANNED_WORDS & {part.lower() for part in re.findall(r"[A-Za-z][a-z]*", name)}:
                yield f"{path}: {name}"


def _identifiers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.keyword(arg=str(name)) | ast.alias(asname=str(name)):
                yield name
            case _:
                pass


def find_import_circles(sources: Sources) -> Iterator[str]:
    """Modules that import each other in a loop; an import inside a function or for types alone counts too."""
    module_paths = {_module_name(path): path for path in sources}
    graph = {name: _imported_modules(sources[path], module_paths) - {name} for name, path in module_paths.items()}
    reachable = {name: _reachable(name, graph) for name in graph}
    circles = {frozenset({n for n in reachable[name] if name in reachable[n]}) for name in graph}
    return (", ".join(sorted(circle)) for circle in circles if circle)


def _module_name(path: str) -> str:
    return path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imported_modules(text: str, modules: Mapping[str, str]) -> set[str]:
    imported: set[str] = set()
    for node in ast.walk(parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
            is_all_submodules = len(submodules) == len(node.names)
            imported |= submodules if is_all_submodules else submodules | {node.module}
    return imported & modules.keys()


def _reachable(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    reached, waiting = set[str](), [start]
    while waiting:
        new = graph[waiting.pop()] - reached
        reached |= new
        waiting += new
    return reached


Rule = Callable[[Sources], Iterator[str]]
RULES: Mapping[str, tuple[Rule, tuple[str, ...]]] = {
    "shared names": (find_shared_names, ("src/sgcd",)),
    "star-tuples": (find_star_tuples, ("src/sgcd", "bench")),
    "many positionals": (find_many_positionals, ("src/sgcd", "bench")),
    "full folders": (find_full_folders, ("src/sgcd", "bench")),
    "long functions": (find_long_functions, ("src/sgcd", "bench")),
    "long files": (find_long_files, ("src/sgcd", "bench")),
    "banned words": (find_banned_words, ("src/sgcd",)),
    "import circles": (find_import_circles, ("src/sgcd",)),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_its_rules(rule: str) -> None:
    find, folders = RULES[rule]
    findings = sorted({*find(read_sources(*folders))})
    assert not findings, f"{rule}:\n" + "\n".join(findings)


def _function_of(num_lines: int) -> str:
    return "def f():\n" + "    pass\n" * (num_lines - 1)


@pytest.mark.parametrize(
    ("find", "good", "bad"),
    [
        (
            find_shared_names,
            {"a.py": "X = 1", "b.py": "from a import X\n_y = X"},
            {"a.py": "X = 1", "b.py": "def X(): ..."},
        ),
        (
            find_shared_names,
            {"a.py": "_X = 1", "b.py": "_X = 2"},
            {"a.py": "X: int = 1", "b.py": "if 1:\n class X: ..."},
        ),
        (find_star_tuples, {"a.py": "names = 'a', 'b'\nf(*names)"}, {"a.py": "args = a, b\nf(*args)"}),
        (find_star_tuples, {"a.py": "f(*args)"}, {"a.py": "f(*(a, b))"}),
        (
            find_star_tuples,
            {"a.py": "def f():\n x = 1, 2\ndef g(x): f(*x)"},
            {"a.py": "def f():\n x: T = 1, y\n return lambda: f(*x)"},
        ),
        (
            find_many_positionals,
            {
                "a.py": "class A:\n def f(self, a, b, c, d, e, *, g): ...",
                "b.py": "@triton.jit\ndef f(a, b, c, d, e, g): ...",
            },
            {"a.py": "async def f(a, b, c, d, e, g): ..."},
        ),
        (
            find_full_folders,
            {"a/__init__.py": "", **{f"a/m{n}.py": "" for n in range(15)}},
            {"a/__init__.py": "X = 1", **{f"a/m{n}.py": "" for n in range(15)}},
        ),
        (find_long_functions, {"a.py": _function_of(60)}, {"a.py": _function_of(61)}),
        (find_long_files, {"a.py": "x = 1\n" * 300}, {"a.py": "x = 1\n" * 301}),
        (find_banned_words, {"a.py": "unsaid = density = f('told')"}, {"a.py": "x.was_told()"}),
        (find_banned_words, {"a.py": "f(b=1)"}, {"a.py": "f(heat=1)"}),
        (find_banned_words, {"a.py": "class Sparse: ..."}, {"a.py": "class NotDense: ..."}),
        (find_banned_words, {"a.py": ""}, {"taught.py": ""}),
        (
            find_import_circles,
            {
                "src/p/a.py": "from p import b",
                "src/p/b.py": "from p.c import x",
                "src/p/c.py": "",
                "src/p/__init__.py": "",
            },
            {"src/p/a.py": "from p import b", "src/p/b.py": "def f():\n from p.c import x", "src/p/c.py": "import p.a"},
        ),
    ],
)
def test_each_rule_finds_what_it_forbids(find: Rule, good: Sources, bad: Sources) -> None:
    assert [*find(good)] == []
    assert len([*find(bad)]) == 1
