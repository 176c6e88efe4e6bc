"""The rules that keep the house as it is: who may import whom, what exists in one place only, what never appears.

Belongs here: rules over source text and imports, read with `ast` where words alone would mislead. Does not belong here:
behaviour, speed (`test_definitions`), rules of the dbt project (`dbt_project/test_project_rules`).
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "analytics_platform"
TESTS = ROOT / "analytics_platform_tests"
VENDOR_FOLDERS = sorted(p.parent for p in (PACKAGE / "vendors").glob("*/__init__.py"))
VENDORS = [folder.name for folder in VENDOR_FOLDERS]
VENDOR_FILES = {
    "README.md",
    "__init__.py",
    "assets.py",
    "automation.py",
    "checks.py",
    "client.py",
    "resource.py",
    "streams.py",
    "tables.py",
}
WRITING_FILES = {"outbound.py", "management.py", "queries.py", "outbox.py", "erasure.py"}
"""Beside the files of every vendor, where its API offers it: data sent, settings changed, reports run, what the outbox
delivers, and the right to erasure."""
MODULES = sorted(PACKAGE.rglob("*.py"))
CORE_WITH_DAGSTER = {
    "automation.py",
    "ingest.py",
    "partitions.py",
    "resources.py",
    "run_numbers.py",
    "sending.py",
    "sweeping.py",
}


Rule = Callable[[Path], None]


def holds_for(paths: Iterable[Path]) -> Callable[[Rule], Any]:
    """One test a rule: it names every file that breaks it. The rule itself stays reachable as `.rule`."""
    chosen = tuple(paths)

    def decorate(rule: Rule) -> Any:
        def test() -> None:
            broken = {place(path): fault for path in chosen if (fault := fault_of(rule, path))}
            assert not broken

        found: Any = test
        found.__name__, found.__doc__, found.rule = rule.__name__, rule.__doc__, rule
        return found

    return decorate


def fault_of(rule: Rule, path: Path) -> str:
    """What the rule has against the file, "" if nothing."""
    try:
        rule(path)
    except AssertionError as error:
        return str(error).partition("\n")[0] or "broken"
    return ""


def place(path: Path) -> str:
    """Where a module is in the package; its bare name elsewhere."""
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name


every_module = holds_for(MODULES)
of_core = holds_for(sorted((PACKAGE / "core").glob("*.py")))
of_sandbox = holds_for(sorted((PACKAGE / "sandbox").glob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[str]:
    """Every module the file imports, wherever in the file; `from a import b` gives both a and a.b."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_any_of(path: Path, *packages: str) -> list[str]:
    return sorted({name for name in imports(path) for p in packages if name == p or name.startswith(f"{p}.")})


def words(path: Path) -> Iterator[str]:
    """What the code says: names, attributes, keywords, strings that are not documentation. No comments."""
    documentation = _documentation(tree(path))
    for node in ast.walk(tree(path)):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in documentation:
                yield text
            case ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text) | ast.alias(name=text):
                yield text
            case ast.keyword(arg=str(text)) | ast.ImportFrom(module=str(text)):
                yield text
            case ast.FunctionDef(name=text) | ast.ClassDef(name=text):
                yield text


def _documentation(module: ast.Module) -> set[int]:
    """Strings that stand alone: docstrings of modules, classes, functions and constants."""
    return {
        id(node.value)
        for node in ast.walk(module)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


# -------------------------------------------------------------------------------------------------- who imports whom


@pytest.mark.parametrize("folder", VENDOR_FOLDERS, ids=lambda folder: folder.name)
def test_a_vendor_knows_core_settings_and_itself(folder: Path) -> None:
    allowed = ("analytics_platform.core", "analytics_platform.settings", f"analytics_platform.vendors.{folder.name}")
    for path in folder.glob("*.py"):
        ours = imports_any_of(path, "analytics_platform")
        assert not [name for name in ours if not name.startswith(allowed)], path


@pytest.mark.parametrize("part", ["client.py", "tables.py", "streams.py", "checks.py", *sorted(WRITING_FILES)])
@pytest.mark.parametrize("folder", VENDOR_FOLDERS, ids=lambda folder: folder.name)
def test_what_talks_to_a_vendor_knows_no_dagster(folder: Path, part: str) -> None:
    if part in WRITING_FILES and not (folder / part).exists():
        return
    assert not imports_any_of(
        folder / part,
        "dagster",
        "dagster_dbt",
        *(f"analytics_platform.core.{Path(name).stem}" for name in CORE_WITH_DAGSTER - {"partitions.py"}),
    )


@of_core
def test_core_knows_dagster_only_where_partitions_become_assets(path: Path) -> None:
    if path.name not in CORE_WITH_DAGSTER:
        assert not imports_any_of(path, "dagster", "dagster_dbt")


@of_core
def test_core_is_imported_by_all_and_imports_only_settings(path: Path) -> None:
    ours = imports_any_of(path, "analytics_platform")
    allowed = ("analytics_platform.core", "analytics_platform.settings")
    assert not [name for name in ours if not name.startswith(allowed)]


@of_sandbox
def test_the_sandbox_shares_nothing_with_what_it_tests(path: Path) -> None:
    """A mistake that client and sandbox shared would be found by nobody."""
    ours = imports_any_of(path, "analytics_platform")
    assert not [name for name in ours if not name.startswith("analytics_platform.sandbox")]
    assert not imports_any_of(path, "httpx", "dagster")


def test_nobody_but_the_sandbox_and_its_verbs_imports_the_sandbox() -> None:
    users = {p.relative_to(PACKAGE).as_posix() for p in MODULES if imports_any_of(p, "analytics_platform.sandbox")}
    assert {user for user in users if not user.startswith("sandbox/")} <= {"cli.py", "demo.py"}


# ------------------------------------------------------------------------------------------------ one folder a vendor


@pytest.mark.parametrize("folder", VENDOR_FOLDERS, ids=lambda folder: folder.name)
def test_every_vendor_folder_has_the_same_files(folder: Path) -> None:
    found = {path.name for path in folder.iterdir() if path.name != "__pycache__"}
    assert VENDOR_FILES <= found <= VENDOR_FILES | WRITING_FILES | {"access.py"}


@pytest.mark.parametrize("folder", VENDOR_FOLDERS, ids=lambda folder: folder.name)
def test_what_reads_cannot_reach_what_writes(folder: Path) -> None:
    writing = [f"analytics_platform.vendors.{folder.name}.{Path(name).stem}" for name in WRITING_FILES]
    for part in ("client.py", "streams.py", "tables.py", "checks.py"):
        assert not imports_any_of(folder / part, *writing), part


@pytest.mark.parametrize("folder", VENDOR_FOLDERS, ids=lambda folder: folder.name)
def test_every_vendor_has_its_tests_and_its_staging_models(folder: Path) -> None:
    tested = {path.name for path in (TESTS / "vendors" / folder.name).glob("test_*.py")}
    assert {"test_client.py", "test_tables.py", "test_checks.py"} <= tested
    assert any((ROOT / "dbt_project" / "models" / "staging" / folder.name).glob("*.sql"))


KNOWS_NO_VENDOR = [
    *sorted((PACKAGE / "core").glob("*.py")),
    *(
        PACKAGE / f"{name}.py"
        for name in ("automation", "catalog", "cli", "definitions", "runner", "settings", "status")
    ),
    PACKAGE / "vendors" / "__init__.py",
]


@holds_for(KNOWS_NO_VENDOR)
def test_code_for_all_vendors_names_none(path: Path) -> None:
    """Its documentation may say which vendor taught a rule; its code may not turn on a name."""
    said = [word for word in words(path) for vendor in VENDORS if vendor in word.lower()]
    assert not said
    if path.name == "definitions.py":
        text = path.read_text(encoding="utf-8").lower()
        assert not [vendor for vendor in VENDORS if vendor in text]


# ---------------------------------------------------------------------------------------------- what exists only once


@every_module
def test_one_place_talks_http(path: Path) -> None:
    """The UI's front door is no vendor: it asks its own webserver on loopback."""
    if place(path) not in ("core/http.py", "core/wire.py", "core/origin.py") and not place(path).startswith("ui/"):
        assert not imports_any_of(path, "httpx", "httpcore", "requests", "urllib.request", "urllib3", "http.client")


@every_module
def test_one_place_writes_parquet_for_each_of_lake_and_snapshot(path: Path) -> None:
    writes = [
        word
        for word in words(path)
        if re.search(r"\bCOPY\b.*\bTO\b|FORMAT parquet|^to_parquet$|write_table|^ParquetWriter$", word)
    ]
    if place(path) not in ("core/lake.py", "core/streamed_table.py", "transform/publish.py"):
        assert not writes


@every_module
def test_only_the_clock_sleeps_for_vendors_and_only_the_ui_for_processes(path: Path) -> None:
    if place(path) != "core/clock.py" and not place(path).startswith("ui/"):
        assert not [name for name, _ in calls(path) if name in ("time.sleep", "sleep")]


# --------------------------------------------------------------------------------------------------- what never appears


@every_module
def test_no_module_has_a_name_that_says_nothing(path: Path) -> None:
    assert not re.search(r"(?i)^(.*_)?(utils?|helpers?|common|misc|stuff|tools)(_.*)?\.py$", path.name)


@every_module
def test_every_module_says_what_belongs_in_it_and_what_does_not(path: Path) -> None:
    charter = " ".join((ast.get_docstring(tree(path)) or "").split())
    assert "elongs here" in charter
    assert re.search(r"(?i)does not belong here|not belong here", charter)


@every_module
def test_errors_are_not_swallowed(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        assert node.type is not None, f"line {node.lineno}: a bare except also catches Ctrl-C"
        broad = ast.unparse(node.type) in ("Exception", "BaseException")
        silent = all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
        assert not (broad and silent), f"line {node.lineno}: an error nobody will ever see"
    for name, call in calls(path):
        if name in ("contextlib.suppress", "suppress"):
            assert not {ast.unparse(argument) for argument in call.args} & {"Exception", "BaseException"}


@every_module
def test_nothing_is_unpickled_evaluated_or_read_by_guessing(path: Path) -> None:
    assert not imports_any_of(path, "pickle", "cPickle", "dill", "shelve", "marshal", "joblib", "cloudpickle")
    called = {name for name, _ in calls(path)}
    assert not called & {"eval", "exec", "os.system", "yaml.load", "pd.read_pickle", "pandas.read_pickle"}
    assert not [
        word for word in words(path) if re.search(r"(?i)read_json_auto|auto_detect\s*=\s*true|read_csv_auto", word)
    ]


@every_module
def test_no_redirect_is_followed_and_no_certificate_is_waved_through(path: Path) -> None:
    for name, call in calls(path):
        for keyword in call.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            assert not (keyword.arg == "follow_redirects" and value is not False), f"line {call.lineno}: {name}"
            assert not (keyword.arg == "verify" and value is False), f"line {call.lineno}: {name}"
            assert not (keyword.arg == "shell" and value is True), f"line {call.lineno}: {name}"
            assert not (keyword.arg == "trust_env" and value is True), f"line {call.lineno}: {name}"


@every_module
def test_every_public_function_and_class_is_explained(path: Path) -> None:
    exported = _exported(tree(path))
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name in exported:
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def _exported(module: ast.Module) -> set[str]:
    for node in module.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    return set()


@every_module
def test_what_is_exported_exists(path: Path) -> None:
    defined = {
        name
        for node in tree(path).body
        for name in (
            [node.name]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            else [t.id for t in node.targets if isinstance(t, ast.Name)]
            if isinstance(node, ast.Assign)
            else [node.target.id]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            else [alias.asname or alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert _exported(tree(path)) <= defined


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


# Written so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile(r"/(?:work|root|farm)/|[.]{2}/shared|/home/[a-z]+/|/Users/[A-Za-z]+/")
REGISTRIES = re.compile(
    r"(?im)--(?:extra-)?index[-]url|--find[-]links|--trusted[-]host|^-i\s+http|https?://[^\s/]*(?:registry|artifactory|pkg[.]dev)|"
    r"https?://[^\s/]*/(?:simple|packages)/|\b(?:files[.])?py(?:pi|thonhosted)[.]org\b"
)


def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    """It must build wherever it is cloned. Only a test may look for the real log, and skips without it."""
    tracked = _tracked()
    if not tracked:
        pytest.skip("not a git checkout")
    found = []
    for path in tracked:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        of_real_data = path.is_relative_to(TESTS) and "real_data" in text
        if REGISTRIES.search(text) or (MACHINE_PATHS.search(text) and not of_real_data):
            found.append(str(path.relative_to(ROOT)))
    assert not found


def test_locks_hold_pins_and_hashes_and_no_address() -> None:
    """Where packages come from is the machine's own setting: a lock that names a place builds there only."""
    tracked = _tracked()
    if not tracked:
        pytest.skip("not a git checkout")
    locks = [
        path for path in tracked if path.suffix == ".lock" or path.name in {"package-lock.json", "requirements.txt"}
    ]
    assert len(locks) >= 3
    for path in locks:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|\"resolved\"|^[ \t]*-(?!-hash=)", text, re.MULTILINE), path.name


# ------------------------------------------------------------------------------------------- the rules, on broken files

BROKEN = [
    (test_one_place_talks_http, "def f():\n    from httpx import get"),
    (test_one_place_writes_parquet_for_each_of_lake_and_snapshot, "frame.to_parquet(path)"),
    (test_one_place_writes_parquet_for_each_of_lake_and_snapshot, "run(f'COPY ({q}) TO {p} (FORMAT parquet)')"),
    (test_only_the_clock_sleeps_for_vendors_and_only_the_ui_for_processes, "import time\ntime.sleep(1)"),
    (test_every_module_says_what_belongs_in_it_and_what_does_not, '"""Belongs here: much."""'),
    (test_errors_are_not_swallowed, "try:\n    f()\nexcept:\n    raise"),
    (test_errors_are_not_swallowed, "try:\n    f()\nexcept Exception:\n    pass"),
    (test_errors_are_not_swallowed, "with contextlib.suppress(Exception):\n    f()"),
    (test_nothing_is_unpickled_evaluated_or_read_by_guessing, "import pickle"),
    (test_nothing_is_unpickled_evaluated_or_read_by_guessing, "eval('1')"),
    (test_nothing_is_unpickled_evaluated_or_read_by_guessing, "sql('FROM read_json_auto(?)')"),
    (test_no_redirect_is_followed_and_no_certificate_is_waved_through, "Client(follow_redirects=True)"),
    (test_no_redirect_is_followed_and_no_certificate_is_waved_through, "Client(verify=False)"),
    (test_every_public_function_and_class_is_explained, "__all__ = ['f']\ndef f(): ..."),
    (test_what_is_exported_exists, "__all__ = ['f']"),
    (test_core_knows_dagster_only_where_partitions_become_assets, "import dagster as dg"),
    (test_core_is_imported_by_all_and_imports_only_settings, "from analytics_platform.vendors import all_tables"),
    (test_the_sandbox_shares_nothing_with_what_it_tests, "from analytics_platform.core import errors"),
    (test_code_for_all_vendors_names_none, "if vendor == 'pirsch': pass"),
]


@pytest.mark.parametrize(("test", "source"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_rule_finds_what_it_is_for(test: Any, source: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(source, encoding="utf-8")
    assert fault_of(test.rule, broken)


def test_a_name_that_says_nothing_is_found() -> None:
    assert fault_of(test_no_module_has_a_name_that_says_nothing.rule, Path("http_utils.py"))
    assert not fault_of(test_no_module_has_a_name_that_says_nothing.rule, Path("toolshed.py"))


# ------------------------------------------------------------------------------------------------------ a sixth vendor

SIXTH = {
    "__init__.py": """
        import dagster as dg

        def definitions(settings, specs_by_name):
            from analytics_platform.vendors.sixth.assets import build_assets
            from analytics_platform.vendors.sixth.automation import build_automation
            from analytics_platform.vendors.sixth.resource import RESOURCE

            automation = build_automation(settings, specs_by_name)
            return dg.Definitions(
                assets=build_assets(settings, specs_by_name),
                jobs=automation.jobs,
                schedules=automation.schedules,
                sensors=automation.sensors,
                resources={"sixth": RESOURCE.from_environment()},
            )
    """,
    "tables.py": """
        from analytics_platform.core.tables import Column, TableSpec

        HITS = TableSpec(
            vendor="sixth",
            name="hits",
            description="One row per hit.",
            key=("hit_id",),
            calls=("hits",),
            wire={"id": "VARCHAR"},
            columns=(Column(name="hit_id", type="VARCHAR", expr="r.id", nullable=False, description="Hit."),),
        )
        TABLES = (HITS,)
    """,
    "client.py": "",
    "streams.py": """
        from analytics_platform.core.streams import Stream
        from analytics_platform.vendors.sixth.tables import HITS

        def extract(client, asked):
            yield from ()

        STREAMS = (Stream(vendor="sixth", name="hits", tables=(HITS,), span="day", extract=extract),)
    """,
    "checks.py": """
        from analytics_platform.core.vendor_checks import VendorCheck, finding

        CHECKS = (
            VendorCheck(
                table="hits",
                name="hit_is_named",
                description="The document says so.",
                blocking=False,
                run=lambda frame: finding(frame, frame["hit_id"].isna(), fault="x", next_step="y."),
            ),
        )
    """,
    "resource.py": """
        from analytics_platform.core.quota_policy import QuotaPolicy, Window
        from analytics_platform.core.resources import VendorResource

        class SixthResource(VendorResource):
            @classmethod
            def from_environment(cls):
                return cls()

            @property
            def vendor(self):
                return "sixth"

            def missing_variables(self, ids):
                return ("SIXTH_TOKEN",)

            def quota_policy(self, ids):
                return QuotaPolicy(account="sixth:1", windows={"any": (Window(10, 60.0),)})

            def connect(self, ids, ledger):
                raise NotImplementedError

        RESOURCE = SixthResource
    """,
    "assets.py": """
        from analytics_platform.core.ingest import vendor_assets
        from analytics_platform.vendors.sixth.checks import CHECKS
        from analytics_platform.vendors.sixth.streams import STREAMS

        def build_assets(settings, specs_by_name):
            return vendor_assets(STREAMS, settings=settings, specs_by_name=specs_by_name, checks=CHECKS)
    """,
    "automation.py": """
        from analytics_platform.core.automation import vendor_automation
        from analytics_platform.vendors.sixth.streams import STREAMS

        def build_automation(settings, specs_by_name):
            return vendor_automation("sixth", STREAMS, settings, specs_by_name, daily_at=(4, 0))
    """,
}

LOAD_WITH_SIXTH = """
import json, sys
import analytics_platform.vendors as vendors
vendors.__path__.append(sys.argv[1])
from analytics_platform.definitions import defs
from analytics_platform.vendors import all_tables, vendor_names
repository = defs.get_repository_def()
graph = repository.asset_graph
print(json.dumps({
    "vendors": vendor_names(),
    "tables": sorted(all_tables()),
    "assets": sorted(key.to_user_string() for key in graph.get_all_asset_keys()),
    "checks": sorted(check.name for check in graph.asset_check_keys if check.asset_key.path[0] == "sixth"),
    "schedules": sorted(schedule.name for schedule in repository.schedule_defs),
    "resources": sorted(repository.get_top_level_resources()),
}))
"""


def test_a_sixth_vendor_is_one_new_folder_and_no_edited_line(tmp_path: Path) -> None:
    folder = tmp_path / "vendors" / "sixth"
    folder.mkdir(parents=True)
    for name, text in SIXTH.items():
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    environment = {**os.environ, "ANALYTICS_PLATFORM_HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD_WITH_SIXTH, str(tmp_path / "vendors")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert set(seen["vendors"]) == {*VENDORS, "sixth"}
    assert "sixth/hits" in seen["tables"]
    assert "sixth/hits" in seen["assets"]
    assert {"hit_is_named", "keys_are_unique"} <= set(seen["checks"])
    assert any("sixth" in name for name in seen["schedules"])
    assert "sixth" in seen["resources"]
