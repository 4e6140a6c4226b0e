"""Imports inside rmthess point down one list, and what is slow to import is imported late."""

import ast
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import rmthess

PACKAGE = Path(rmthess.__file__).parent

# Lowest first. A unit (a module or a subpackage) imports units of lower groups only.
LAYERS = (
    ("arithmetic", "jacobi", "ranks"),
    ("measure", "operators"),
    ("adapters",),
    ("storage", "distance", "metrics", "extremes", "laws"),
    ("edges", "free", "spikes", "krylov", "sampling", "log_axis", "smoothing"),
    ("predictions", "families"),
    ("instrument", "one_cut"),
    ("detection", "nearest"),
    ("trial",),
    ("fitting", "comparison"),
    ("choice",),
    ("plots",),
    ("report",),
    ("demo",),
    ("cli_common",),
    ("cli_demo", "cli_doctor", "cli_law", "cli_measure", "cli_rank", "cli_spectrum"),
    ("cli_predict",),
    ("cli",),
    ("__main__",),
)

# Narrower than the list: operators know torch and nothing of measures, krylov alone knows both.
ONLY = {
    "ranks": set(),
    "operators": {"ranks"},
    "krylov": {"operators", "measure", "jacobi", "storage"},
}

# Third parties at module level, and who may. The longest prefix counts; what is not named is not
# allowed. An empty set: seconds to import or optional, so only inside a function, if at all.
EVERYWHERE = {unit for group in LAYERS for unit in group}
COMMANDS = {unit for unit in EVERYWHERE if unit.startswith(("cli", "__main__"))}
AT_MODULE_LEVEL = {
    "numpy": EVERYWHERE - COMMANDS,
    "scipy": EVERYWHERE - {"ranks"} - COMMANDS,
    "scipy.stats": set(),
    "torch": {"operators", "krylov", "demo"},
    "safetensors": {"storage"},
    "jinja2": {"report"},
    "markupsafe": {"report"},
    "typer": COMMANDS,
    "rich": COMMANDS,
    "matplotlib": set(),
    "mpmath": set(),
    "sympy": set(),
    "sklearn": set(),
    "flint": set(),
}

# Inside a function: exactly these.
INSIDE_A_FUNCTION = {
    ("ranks", "flint"),
    ("arithmetic", "mpmath"),
    ("arithmetic", "sympy"),
    ("laws", "mpmath"),
    ("laws", "sympy"),
    ("predictions", "torch"),
    ("predictions", "rmthess.krylov.eigenpairs"),
    ("predictions", "rmthess.operators.batches"),
    ("predictions", "rmthess.operators.dense"),
    ("predictions", "rmthess.operators.hessian"),
    ("report", "matplotlib"),
    ("report", "cycler"),
    ("plots", "matplotlib"),
    ("demo", "matplotlib"),
    ("demo", "sklearn"),
}


class Import(NamedTuple):
    file: str
    line: int
    unit: str
    target: str
    place: str  # "module", "function", "typing", or "use": rmthess.fit(...), loaded on first use

    def __str__(self):
        return f"{self.file}:{self.line} imports {self.target}"


def unit_of(module):
    """``rmthess.laws.law`` is of the unit ``laws``; the package itself imports nothing."""
    return module.split(".")[1] if "." in module else None


def targets(node):
    """The modules that a statement loads, public names resolved to the modules behind them."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        if node.level:
            return [f"{'.' * node.level}{node.module or ''}"]
        if node.module != "rmthess":
            return [node.module]
        return [_home(alias.name) for alias in node.names]
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return [_home(node.attr)] if node.value.id in ("rmthess", "rm") else []
    return []


def _home(name):
    if name in rmthess.__all__:
        return "rmthess." + rmthess._HOME[name] if name in rmthess._HOME else "rmthess"
    return f"rmthess.{name}"


def is_typing_only(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_of(path):
    file = path.relative_to(PACKAGE.parent).as_posix()
    unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")

    def visit(node, place):
        where = "use" if isinstance(node, ast.Attribute) else place
        for target in targets(node):
            yield Import(file, node.lineno, unit, target, where)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            place = "function"
        for child in ast.iter_child_nodes(node):
            typing_only = is_typing_only(node) and child in node.body
            yield from visit(child, "typing" if typing_only else place)

    return list(visit(ast.parse(path.read_text(encoding="utf-8")), "module"))


SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
IMPORTS = [found for path in SOURCES for found in imports_of(path)]
OURS = [found for found in IMPORTS if found.target.startswith("rmthess.")]
THEIRS = [
    found
    for found in IMPORTS
    if found.target.split(".")[0] not in sys.stdlib_module_names | {"rmthess", "__future__"}
]


LEVEL = {unit: level for level, group in enumerate(LAYERS) for unit in group}


def package(module):
    """The entry of ``AT_MODULE_LEVEL`` that decides, or the module's first name."""
    prefixes = [p for p in AT_MODULE_LEVEL if module == p or module.startswith(p + ".")]
    return max(prefixes, key=len, default=module.split(".")[0])


def test_every_module_has_a_place_in_the_list():
    found = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES}
    assert found == EVERYWHERE


def test_imports_are_absolute():
    assert not [str(found) for found in IMPORTS if found.target.startswith(".")]


def test_imports_point_down_the_list():
    wrong = [
        str(found)
        for found in OURS
        if unit_of(found.target) != found.unit
        and LEVEL.get(unit_of(found.target), len(LAYERS)) >= LEVEL.get(found.unit, -1)
    ]
    assert not wrong


@pytest.mark.parametrize("unit", ONLY)
def test_narrow_modules_import_what_they_must_know_and_no_more(unit):
    wrong = [
        str(found)
        for found in OURS
        if found.unit == unit and unit_of(found.target) not in ONLY[unit] | {unit}
    ]
    assert not wrong


def test_the_package_itself_imports_nothing_but_the_standard_library():
    found = [i for i in imports_of(PACKAGE / "__init__.py") if i.place != "typing"]
    assert not [str(i) for i in found if i.target.split(".")[0] not in sys.stdlib_module_names]


def test_third_parties_are_imported_at_module_level_only_where_the_table_says():
    wrong = [
        str(found)
        for found in THEIRS
        if found.place == "module"
        and found.unit not in AT_MODULE_LEVEL.get(package(found.target), set())
    ]
    assert not wrong


def test_imports_inside_functions_are_those_of_the_table():
    late = {
        (found.unit, found.target if found in OURS else package(found.target))
        for found in OURS + THEIRS
        if found.place == "function"
    }
    # the command line imports everything late, so that --help answers at once
    assert {found for found in late if found[0] not in COMMANDS} == INSIDE_A_FUNCTION
