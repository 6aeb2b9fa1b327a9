"""The house stays as it was drawn: four floors, imports that only point down, names public on purpose."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("storage", "models", "pipelines", "flows")
FOLDERS = {*FLOORS, "tests", "docker", "docs"}
FILES = {
    "pyproject.toml",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "requirements.lock",
    "prefect.yaml",
}
MODULES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
PUBLIC_MODULES = [path for path in MODULES if path.name not in ("__init__.py", "__main__.py")]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def public_definitions(tree: ast.Module) -> set[str]:
    """Classes and functions without an underscore."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


def exported(tree: ast.Module) -> list[str] | None:
    """What `__all__` lists."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets):
            return [str(value) for value in ast.literal_eval(node.value)]
    return None


def bound_names(tree: ast.Module) -> set[str]:
    """Everything a module binds at its top level."""
    names = public_definitions(tree)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {
                item.id for target in targets for item in ast.walk(target) if isinstance(item, ast.Name)
            }
    return names


def test_the_top_level_holds_the_four_floors_and_little_else() -> None:
    top = {Path(name).parts[0] for name in tracked() if not name.startswith(".")}
    assert set(FLOORS) <= top
    assert top <= FOLDERS | FILES, f"unexpected at the top level: {sorted(top - FOLDERS - FILES)}"


def test_imports_only_point_down() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_import_contract_can_fail(tmp_path: Path) -> None:
    """The same check on a house with a pipe upwards must complain."""
    for floor in FLOORS:
        (tmp_path / floor).mkdir()
        (tmp_path / floor / "__init__.py").write_text("")
    (tmp_path / "storage" / "leak.py").write_text("import flows\n")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "storage.leak" in done.stdout


def module_problems(path: Path) -> list[str]:
    """What a module lacks: its docstring, `__all__`, names in it that are forgotten or not there."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    problems = [] if ast.get_docstring(tree) else ["no docstring"]
    names = exported(tree)
    if names is None:
        return [*problems, "no __all__"]
    if forgotten := public_definitions(tree) - set(names):
        problems.append(f"public by name but not in __all__: {sorted(forgotten)}")
    if absent := set(names) - bound_names(tree):
        problems.append(f"in __all__ but not there: {sorted(absent)}")
    if len(names) != len(set(names)):
        problems.append("a name is in __all__ twice")
    return problems


@pytest.mark.parametrize("floor", FLOORS)
def test_every_module_says_what_it_is_and_what_is_public(floor: str) -> None:
    modules = [path for path in PUBLIC_MODULES if path.relative_to(ROOT).parts[0] == floor]
    assert modules
    problems = {name_of(path): found for path in modules if (found := module_problems(path))}
    assert not problems, "\n".join(f"{name}: {'; '.join(found)}" for name, found in problems.items())


def test_packages_say_their_floor_and_hold_nothing_else() -> None:
    for floor in FLOORS:
        tree = ast.parse((ROOT / floor / "__init__.py").read_text())
        assert ast.get_docstring(tree) and len(tree.body) == 1, floor


def test_files_stay_readable_in_one_sitting() -> None:
    long = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: lines for name, lines in long.items() if lines > 500}


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    missing = [name_of(path) for path in PUBLIC_MODULES if f"`{path.stem}`" not in text]
    assert not missing, f"ARCHITECTURE.md does not tell of {missing}"
