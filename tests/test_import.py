"""What ``import rmthess`` costs, and that every public name is there in any order of imports."""

import json
import subprocess
import sys

import pytest

import rmthess


def run(code):
    """What a fresh interpreter prints, as JSON: this process has long imported everything."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys, rmthess
skip = {skip!r}
modules = [m.name for m in pkgutil.walk_packages(rmthess.__path__, "rmthess.")]
for module in modules:
    if module.split(".")[1] not in skip:
        importlib.import_module(module)
"""

DESCRIBE_PUBLIC_NAMES = """
import json, rmthess
def describe(name):
    value = getattr(rmthess, name)
    return [type(value).__name__, getattr(value, "__module__", ""), getattr(value, "__name__", "")]
once = {name: describe(name) for name in rmthess.__all__}
again = {name: describe(name) for name in rmthess.__all__}
assert once == again
print(json.dumps(once))
"""


def test_import_takes_less_than_three_tenths_of_a_second():
    code = (
        "import time; start = time.perf_counter(); import rmthess; "
        "print(time.perf_counter() - start)"
    )
    assert min(run(code) for _ in range(3)) < 0.3


def test_import_loads_no_heavy_package():
    heavy = {"torch", "matplotlib", "sklearn", "scipy", "sympy"}
    loaded = run("import json, sys, rmthess; print(json.dumps(sorted(sys.modules)))")
    assert not heavy & set(loaded)


def test_everything_but_measuring_works_without_torch():
    code = IMPORT_EVERYTHING.format(skip={"operators", "krylov", "demo", "__main__"})
    assert not run(code + "print(json.dumps('torch' in sys.modules))")


@pytest.mark.parametrize("order", ["on first use", "after all submodules"])
def test_every_public_name_resolves_to_itself_and_not_to_a_module(order):
    first = IMPORT_EVERYTHING.format(skip={"__main__"}) if order == "after all submodules" else ""
    described = run(first + DESCRIBE_PUBLIC_NAMES)
    assert {name for name, (kind, *_) in described.items() if kind == "module"} == {
        "plots",
        "spikes",
    }
    for name, (kind, module, own_name) in described.items():
        if name in rmthess._MODULES:
            continue
        assert kind != "module", f"rmthess.{name} is a module, it hides the public name"
        if kind in ("function", "type", "ABCMeta"):
            assert (module, own_name) == (f"rmthess.{rmthess._HOME[name]}", name)


def test_dir_lists_the_public_names_and_they_exist():
    assert set(dir(rmthess)) == set(rmthess.__all__)
    assert run(
        "import json, rmthess; print(json.dumps(all(hasattr(rmthess, n) for n in dir(rmthess))))"
    )


def test_an_unknown_name_is_refused_by_name():
    with pytest.raises(AttributeError, match="marchenko"):
        rmthess.marchenko  # noqa: B018
