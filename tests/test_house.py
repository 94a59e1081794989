"""The house rules that a machine can check: who imports whom, names, sizes, light imports, words, types.

Each rule is a function from a source to its complaints; `test_a_bad_file_is_found` shows that each can fail.
"""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lerobot"

# Who may import whom, besides itself: the table of CONTRIBUTING.md.
FLOOR_1 = {"nn", "optim", "processor", "datasets", "distributed", "motors", "cameras", "sim"}
FLOORS_2_TO_4 = {
    "policies",
    "robots",
    "teleoperators",
    "envs",
    "evaluation",
    "control",
    "training",
    "async_inference",
}
MAY_IMPORT = {
    "core": set(),
    **dict.fromkeys(FLOOR_1, {"core"}),
    "policies": {"core", "nn", "optim", "processor"},
    "robots": {"core", "motors", "cameras", "sim"},
    "teleoperators": {"core", "motors"},
    "envs": {"core", "processor", "sim"},
    "evaluation": {"core", "distributed", "processor", "policies", "envs", "datasets"},
    "control": {"core", "motors", "cameras", "robots", "teleoperators", "datasets", "processor", "policies"},
    "training": {"core", "distributed", "optim", "processor", "datasets", "policies", "envs", "evaluation"},
    "async_inference": {"core", "processor", "policies", "cameras", "robots", "control"},
    "rl": {"core"} | FLOOR_1 | FLOORS_2_TO_4,
    "search": {"core", "evaluation", "training"},
    "viewer": {"core", "datasets"},
}
TOP = {"scripts", "compat"}  # may import everything

# Rooms whose every module, and names of files that everywhere, load without torch.
LIGHT_ROOMS = ("core", "motors", "cameras", "robots", "teleoperators", "scripts")
LIGHT_FILES = ("config.py",)

BANNED_NAMES = {"utils", "util", "common", "helpers", "misc", "base_utils"}
BANNED_PACKAGES = {
    "accelerate",
    "cv2",
    "datasets",
    "diffusers",
    "pandas",
    "torchcodec",
    "torchvision",
    "transformers",
}
LONGEST = {"file": 600, "function": 80, "class": 400}
UNFINISHED = re.compile(r"\b(TO" + r"DO(?!\(#\d+\))|FIX" + r"ME|XX" + r"X)\b")
MACHINE_PATH = re.compile(
    r"(^|[^A-Za-z0-9_.])/(wo" + r"rk|fa" + r"rm)/|/tm" + r"p/bash_|/op" + r"t/(wheels|pypi)"
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Source:
    """One Python file: where it stands in the house and what it says."""

    path: Path  # relative to the repo root
    text: str

    @property
    def module(self) -> str:
        return ".".join(self.path.with_suffix("").parts).removesuffix(".__init__")

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        return self.module.split(".")[1] if "." in self.module else ""

    @classmethod
    def read(cls, path: Path) -> "Source":
        return cls(path.relative_to(ROOT), path.read_text(encoding="utf-8"))


def sources(*folders: str) -> list[Source]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Source.read(path) for path in found]


# ------------------------------------------------------------------------------------------------ the rules
def imported(source: Source) -> list[tuple[int, str]]:
    """(line, module) of every import, also inside functions, under TYPE_CHECKING and by a literal name."""
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{source.path}:{node.lineno}: relative imports hide the room"
            found += [(node.lineno, f"{node.module}.{name.name}") for name in node.names]
        elif isinstance(node, ast.Constant) and re.fullmatch(r"lerobot(\.\w+)+", str(node.value)):
            found.append((node.lineno, node.value))
    return found


def floors(source: Source) -> list[str]:
    if source.room in TOP or not source.room:
        return []
    if source.room not in MAY_IMPORT:
        return [f"{source.path}: the room {source.room!r} stands in no row of the floors table"]
    allowed, said = MAY_IMPORT[source.room] | {source.room}, []
    for line, module in imported(source):
        parts = module.split(".")
        room = parts[1] if parts[0] == "lerobot" and len(parts) > 1 else None
        if room is not None and room != "__version__" and room not in allowed:
            said.append(f"{source.path}:{line}: {source.room} may not import {room} ({module})")
    return said


def neighbours(source: Source) -> list[str]:
    """One policy never imports another: what two of them need is a brick in nn."""
    parts = source.module.split(".")
    if parts[1:2] != ["policies"] or len(parts) < 3 or not (PACKAGE / "policies" / parts[2]).is_dir():
        return []
    others = {path.name for path in (PACKAGE / "policies").iterdir() if path.is_dir()} - {parts[2]}
    return [
        f"{source.path}:{line}: {module} is a neighbour"
        for line, module in imported(source)
        if module.startswith("lerobot.policies.") and module.split(".")[2] in others
    ]


def packages(source: Source) -> list[str]:
    return [
        f"{source.path}:{line}: {module} is not used here; STYLE says what stands in for it"
        for line, module in imported(source)
        if module.split(".")[0] in BANNED_PACKAGES
    ]


def names(source: Source) -> list[str]:
    drawers = BANNED_NAMES & {source.path.stem, *source.path.parts}
    return [f"{source.path}: {name!r} is a drawer, not a noun" for name in sorted(drawers)]


def sizes(source: Source) -> list[str]:
    if source.path.stem == "tables":  # tables are exempt and live alone
        return []
    said = []
    for node in ast.walk(source.tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)):
            continue
        kind = (
            "file"
            if isinstance(node, ast.Module)
            else "class"
            if isinstance(node, ast.ClassDef)
            else "function"
        )
        length = len(source.text.splitlines()) if kind == "file" else (node.end_lineno or 0) - node.lineno + 1
        if length > LONGEST[kind] and "Size:" not in (ast.get_docstring(node) or ""):
            name = getattr(node, "name", source.path.name)
            said.append(
                f"{source.path}: the {kind} {name} has {length} lines; its docstring needs a 'Size:' reason"
            )
    return said


def words(source: Source) -> list[str]:
    said = []
    for number, line in enumerate(source.text.splitlines(), start=1):
        if UNFINISHED.search(line):
            said.append(f"{source.path}:{number}: unfinished work needs an issue number: {line.strip()}")
        if MACHINE_PATH.search(line):
            said.append(f"{source.path}:{number}: a path of one machine: {line.strip()}")
    return said


def types(source: Source) -> list[str]:
    """Every public function says what it takes and gives."""
    said, open_nodes = [], [(source.tree, "")]
    while open_nodes:
        scope, owner = open_nodes.pop()
        for node in ast.iter_child_nodes(scope):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                open_nodes.append((node, f"{owner}{node.name}."))
            if not isinstance(node, FUNCTIONS) or (node.name.startswith("_") and node.name != "__init__"):
                continue
            args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            args += [extra for extra in (node.args.vararg, node.args.kwarg) if extra]
            bare = [arg.arg for arg in args if arg.annotation is None and arg.arg not in ("self", "cls")]
            bare += ["return"] if node.returns is None and node.name != "__init__" else []
            if bare:
                said.append(
                    f"{source.path}:{node.lineno}: {owner}{node.name} has no type for {', '.join(bare)}"
                )
    return said


def quiet_packages(source: Source) -> list[str]:
    """An `__init__.py` holds a docstring and lazy re-exports; importing it imports nothing of ours."""
    if source.path.name != "__init__.py" or source.path.parent == Path("lerobot"):
        return []
    loud = (node for node in source.tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))
    return [
        f"{source.path}:{node.lineno}: an import at the top of a package; make it lazy"
        for node in loud
        if "lerobot" in ast.unparse(node) and getattr(node, "module", "") != "lerobot.core.lazy"
    ]


RULES = (floors, neighbours, packages, names, sizes, words, types, quiet_packages)


# ------------------------------------------------------------------------------------------------ the house
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule):
    complaints = [complaint for source in sources("lerobot") for complaint in rule(source)]
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize("rule", [names, words], ids=lambda rule: rule.__name__)
def test_tests_and_examples_keep(rule):
    complaints = [c for s in sources("tests", "examples", "benchmarks", ".ci") for c in rule(s)]
    assert not complaints, "\n" + "\n".join(complaints)


def test_other_texts_name_no_machine():
    suffixes = {".md", ".toml", ".yaml", ".yml", ".txt", ".cfg", ".sh", ".html", ".js", ".css"}
    found = [
        path
        for folder in ("docs", "lerobot", "tests", "examples", ".ci")
        for path in (ROOT / folder).rglob("*")
    ]
    found = [path for path in found if path.suffix in suffixes] + [p for p in ROOT.iterdir() if p.is_file()]
    complaints = []
    for path in found:
        text = path.read_text(encoding="utf-8", errors="replace")
        complaints += [
            f"{path.relative_to(ROOT)}: {line}" for line in text.splitlines() if MACHINE_PATH.search(line)
        ]
    assert not complaints, "\n" + "\n".join(complaints)


def test_every_room_has_a_page():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {
        line.split("|")[2].strip().strip("`"): re.findall(r"\(([\w/]+\.md)", line.split("|")[4])
        for line in index.splitlines()
        if line.count("|") == 5
    }
    assert rooms <= set(pages), f"not in the table of rooms of docs/README.md: {sorted(rooms - set(pages))}"
    assert all(pages[room] for room in rooms)


def test_links_between_pages_lead_somewhere():
    dead = []
    for page in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            file, _, anchor = target.partition("#")
            if "://" in target:
                continue
            found = (page.parent / file).resolve() if file else page
            if not found.exists():
                dead.append(f"{page.relative_to(ROOT)}: {target}")
            elif anchor and found.suffix == ".md" and anchor not in anchors(found):
                dead.append(f"{page.relative_to(ROOT)}: {target} has no such heading")
    assert not dead, "\n" + "\n".join(dead)


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link: small letters, spaces as dashes, other signs left out."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_table_of_contributing_is_the_one_enforced():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d \| ([\w, ]+) \| (.+) \|$", text, flags=re.MULTILINE)
    said = {}
    for rooms, allowed in rows:
        each = allowed.split("·") if "·" in allowed else [allowed] * len(rooms.split(", "))
        said |= {room: set(words.split()) for room, words in zip(rooms.split(", "), each, strict=True)}
    plain = {room: allowed for room, allowed in said.items() if room not in ("core", "rl", "scripts")}
    assert plain == {room: MAY_IMPORT[room] for room in MAY_IMPORT if room not in ("core", "rl")}


def test_stored_strings_are_spelled_in_one_place():
    from lerobot.core import keys

    spelled = {
        v for n, v in vars(keys).items() if n.isupper() and ("." in v or "/" in v) and not v.endswith(".json")
    }
    complaints = [
        f"{source.path}:{node.lineno}: {node.value!r} is spelled in core/keys.py"
        for source in sources("lerobot")
        if source.path.name != "keys.py"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in spelled
    ]
    assert not complaints, "\n" + "\n".join(complaints)


# -------------------------------------------------------------------------------------------- light imports
LOADED = """
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
    heavy = sorted(set({heavy!r}) & set(sys.modules))
    if heavy:
        sys.exit(name + " loads " + ", ".join(heavy))
"""


def loads(modules: list[str], heavy: list[str]) -> str:
    """The first of `modules` whose import brings in a heavy package, in words; empty if none does."""
    code = LOADED.format(modules=modules, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    return done.stderr.strip()


def light_modules() -> list[str]:
    return [s.module for s in sources("lerobot") if s.room in LIGHT_ROOMS or s.path.name in LIGHT_FILES]


def test_importing_lerobot_is_nothing():
    assert loads(["lerobot"], ["torch", "numpy", "yaml", "rich", "pyarrow", "av"]) == ""


def test_configs_commands_and_hardware_load_without_torch():
    modules = light_modules()
    assert {"lerobot.core.flags", "lerobot.policies.act.config", "lerobot.scripts.train"} <= set(modules)
    assert loads(modules, ["torch"]) == ""


def test_a_heavy_import_is_found():
    assert loads(["json", "decimal"], ["decimal"]) == "decimal loads decimal"


# ------------------------------------------------------------------------------------- the rules themselves
BAD = {
    floors: ("lerobot/nn/brick.py", "def f() -> None:\n    from lerobot.policies.act import config\n"),
    neighbours: ("lerobot/policies/act/model.py", "from lerobot.policies.other.model import thing\n"),
    packages: ("lerobot/policies/act/model.py", "import torchvision.models\n"),
    names: ("lerobot/nn/utils.py", ""),
    sizes: ("lerobot/nn/brick.py", "def f() -> None:\n" + "    f()\n" * 81),
    words: ("lerobot/nn/brick.py", "x = 1  # TO" + "DO later\n"),
    types: ("lerobot/nn/brick.py", "class Brick:\n    def size(self, scale) -> int:\n        return scale\n"),
    quiet_packages: ("lerobot/nn/__init__.py", "from lerobot.nn.brick import Brick\n"),
}
GOOD = {
    floors: ("lerobot/nn/brick.py", "from lerobot.core import keys\nfrom lerobot.nn.other import x\n"),
    packages: ("lerobot/datasets/reader.py", "from lerobot.datasets import schema\nimport numpy\n"),
    sizes: ("lerobot/nn/brick.py", 'def f() -> None:\n    """Size: a table."""\n' + "    f()\n" * 81),
    words: ("lerobot/nn/brick.py", "x = 1  # TO" + "DO(#12) later; /work in one's own words\n"),
    types: ("lerobot/nn/brick.py", "class _Inner:\n    def size(self, scale):\n        return scale\n"),
    quiet_packages: ("lerobot/nn/__init__.py", '"""Bricks."""\nimport importlib\n'),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_bad_file_is_found(rule, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)  # a house with two policies
    for policy in ("act", "other"):
        (tmp_path / "policies" / policy).mkdir(parents=True)
    path, text = BAD[rule]
    assert len(rule(Source(Path(path), text))) == 1


@pytest.mark.parametrize("rule", GOOD, ids=lambda rule: rule.__name__)
def test_a_good_file_is_left_in_peace(rule):
    path, text = GOOD[rule]
    assert rule(Source(Path(path), text)) == []


def test_a_path_of_one_machine_is_found():
    assert words(Source(Path("lerobot/nn/brick.py"), "FOLDER = '/wo" + "rk/main'\n"))


def test_a_room_outside_the_table_is_found():
    assert floors(Source(Path("lerobot/attic/box.py"), "import json\n"))
