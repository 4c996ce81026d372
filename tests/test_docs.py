"""The documentation is true to the code, and the code cites only what ships.

`UPDATE_DOCS=1 scripts/test tests/test_docs.py` writes the tables of options and commands.
"""

import ast
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from copilot_balancer.cli.main import cli
from copilot_balancer.config import options
from copilot_balancer.rules.classify import EXCHANGE_RULES, RULES
from support.proxies import ROOT

ADDON = ROOT / "addon"
DOCS = ADDON / "docs"
PAGES = [ROOT / "README.md", ROOT / "certs-howto.md", *sorted(ROOT.glob(".github/*.md")), *sorted(DOCS.glob("*.md"))]
CODE = [
    path
    for folder in (ADDON, ROOT / "tests", ROOT / "scripts")
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.suffix in (".py", ".toml", ".tcss", "") and "__pycache__" not in path.parts
] + [ROOT / "pyproject.toml"]


@cache
def headings(page: Path) -> frozenset[str]:
    """The anchors that GitHub gives to a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^#+ (.+?)\s*$", text, flags=re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found)


def unresolved(target: str, base: Path) -> str | None:
    """Why `target`, a path that may end in ``#heading``, leads nowhere from the folder `base`; None: it leads there."""
    name, _, anchor = target.partition("#")
    page = (base / name).resolve()
    if not page.exists():
        return f"{name} is not there"
    return None if not anchor or anchor in headings(page) else f"{name} has no heading #{anchor}"


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def options_table() -> str:
    rows = [(f"`copilot_{one.name}`", one) for one in options()]
    rows += [(f"`{one.name}` (only in config.toml)", one) for one in options(file_only=True)]
    lines = [f"| {name} | {one.type} | {one.default} | {one.help} |" for name, one in rows]
    return "\n".join(["| option | value | default | meaning |", "|---|---|---|---|", *lines])


def commands_table() -> str:
    rows: list[str] = []

    def walk(command: click.Command, name: str) -> None:
        text = (command.help or "").strip().split("\n\n")[0].replace("\n", " ")
        rows.append(f"| `{name}` | {re.sub(' +', ' ', text)} |")
        if isinstance(command, click.Group):
            for child in sorted(command.commands):
                walk(command.commands[child], f"{name} {child}")

    for name in sorted(cli.commands):
        walk(cli.commands[name], name)
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


@pytest.mark.parametrize(("block", "made"), [("options", options_table), ("commands", commands_table)])
def test_tables(block, made):
    """The tables of options and commands are those of the code."""
    page = DOCS / f"{block}.md"
    text = page.read_text("utf-8")
    found = re.search(rf"(<!-- {block}: begin[^\n]*-->\n)(.*?)(<!-- {block}: end -->)", text, re.DOTALL)
    assert found
    wanted = f"{made()}\n"
    if os.environ.get("UPDATE_DOCS"):
        page.write_text(text[: found.start(2)] + wanted + text[found.end(2) :], "utf-8")
    else:
        assert found[2] == wanted


# ── links and citations ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    """Each relative link leads to a file that is there, and to a heading in it."""
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")) if "://" not in target]
    wrong = [unresolved(f"{page.name}{target}" if target[0] == "#" else target, page.parent) for target in targets]
    assert [one for one in wrong if one] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_modules(page):
    """Each Python file that a page names is there, below the package, the tests or the top."""
    bases = (ADDON / "copilot_balancer", ROOT / "tests", ROOT)
    known = {path.name for base in bases[:2] for path in base.rglob("*.py")}
    named = set(re.findall(r"`([\w/.-]+\.py)\b", page.read_text("utf-8")))
    assert {one for one in named if one not in known and not any((base / one).is_file() for base in bases)} == set()


def test_every_page_is_found():
    """Each page of the documentation is linked from README."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [page.name for page in sorted(DOCS.glob("*.md")) if f"(addon/docs/{page.name}" not in readme] == []


def test_citations():
    """Each page that code cites ships, and so does the heading; a page of another repository is named with it."""
    own = {page.name for page in PAGES if page.parent != DOCS}
    wrong = []
    for path in CODE:
        if path == Path(__file__).resolve():
            continue
        for cited in re.findall(r"(?<![\w/.-])(?:[\w.-]+/)*[\w-]+\.md(?:#[\w-]+)?", path.read_text("utf-8", "replace")):
            if cited.startswith("docs/"):
                why = unresolved(cited, ADDON)
            elif cited.startswith("addon/"):
                why = unresolved(cited, ROOT)
            elif cited.count("/") >= 2 or (cited in own and "#" not in cited):
                why = None
            else:
                why = f"{cited} is none of ours; of another repository's page the repository is named first"
            if why:
                wrong.append(f"{path.relative_to(ROOT)}: {why}")
    assert wrong == []


FOREIGN = {"AddonManager", "DataViewerOverlay", "Http1Client", "HttpStream", "SecretStr", "StopIteration"}
"""Classes of other packages that code names."""
CLASS = re.compile(r"[A-Z]\w*[a-z]")


def defined(tree: ast.AST) -> Iterator[str]:
    """Each name that a module or a class defines: classes, functions, variables, attributes of ``self``."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.TypeAlias(name=ast.Name(id=name)):
                yield name


def test_named_classes():
    """Each class, each attribute after a class and each class after a module that a docstring or comment names is there."""
    trees = [(path, ast.parse(path.read_text("utf-8"))) for path in CODE if path.suffix == ".py"]
    names: dict[str, set[str]] = {}
    for path, tree in trees:
        names.setdefault(path.stem, set()).update(defined(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                names.setdefault(node.name, set()).update(defined(node))
            elif isinstance(node, ast.TypeAlias):
                names.setdefault(node.name.id, set())
    wrong = set()
    for path, _ in trees:
        for cited in re.findall(r"``((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)``", path.read_text("utf-8")):
            *_, holder, name = [None, *cited.split(".")]
            ours = CLASS.match(holder or "") or CLASS.match(name) or (holder and name.isupper())
            if ours and not {holder, name} & FOREIGN and name not in (names.get(holder, ()) if holder else names):
                wrong.add(f"{path.relative_to(ROOT)}: {cited}")
    assert wrong == set()


FORBIDDEN = (
    r"\bshared/[a-z-]+\.md",
    r"\bfeatures? [A-G][0-9]{1,2}\b",
    r"\bCP [0-9]",
    r"\([TNRS][0-9]{1,2}(?:[,)])",
    r"\b(?:rule|fact)s? [0-9]{1,2}[,)]",
)
"""Numbers of a plan that no reader has."""


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_plan_is_cited(pattern):
    """No number of a paper outside the repository stands in code, tests, scripts or documentation."""
    found = {
        f"{path.relative_to(ROOT)}: {hit}"
        for path in (*CODE, *PAGES)
        if path != Path(__file__).resolve()
        for hit in re.findall(pattern, path.read_text("utf-8", "replace"))
    }
    assert found == set()


def test_sources_of_the_rules():
    """Each row of the table of refusals names a heading or a thread, or a repository that the protocol page lists."""
    page = (DOCS / "copilot-protocol.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+?) \|", page[page.index("## Sources") : page.index("## Hosts")], re.MULTILINE)
    listed = [name for row in rows[1:] for name in row.split(", ")]
    assert len(listed) > 10
    unlisted = {
        f"{rule.name}: {rule.source}"
        for rule in (*RULES, *EXCHANGE_RULES)
        if not re.search(r"[\w-]#[0-9]|docs/[\w-]+\.md#", rule.source) and not any(n in rule.source for n in listed)
    }
    assert unlisted == set()
