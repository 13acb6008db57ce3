"""pythia_fast.cli.target: MODULE:APP leads to the App, or says what was looked for."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pythia_fast.app import App
from pythia_fast.cli.exit_codes import AppImportError, ExitCode
from pythia_fast.cli.main import main
from pythia_fast.cli.target import load_app

ONE_APP = "from pythia_fast import App\napp = App('one')\nlimit = 3\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with modules of its own; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.mark.parametrize("target", ["shop_one:app", "shop_one.py:app", "./shop_one.py:app", "shop_one", "shop_one.py"])
def test_a_module_or_a_file_in_the_working_folder(project: Path, target: str) -> None:
    (project / "shop_one.py").write_text(ONE_APP)
    app = load_app(target)
    assert isinstance(app, App)
    assert app.name == "one"


@pytest.mark.parametrize("target", ["shop_pkg.inner.orders:app", "shop_pkg/inner/orders.py:app"])
def test_a_module_in_a_package_keeps_its_name(project: Path, target: str) -> None:
    folder = project / "shop_pkg" / "inner"
    folder.mkdir(parents=True)
    (project / "shop_pkg" / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text("NAME = 'inner'\n")
    (folder / "orders.py").write_text("from pythia_fast import App\nfrom .helper import NAME\napp = App(NAME)\n")
    assert load_app(target).name == "inner"
    assert "shop_pkg.inner.orders" in sys.modules


def test_a_file_elsewhere_finds_its_neighbours(project: Path) -> None:
    folder = project / "elsewhere"
    folder.mkdir()
    (folder / "shop_helper.py").write_text("NAME = 'far'\n")
    (folder / "shop_far.py").write_text("from pythia_fast import App\nfrom shop_helper import NAME\napp = App(NAME)\n")
    assert load_app("elsewhere/shop_far.py:app").name == "far"


def test_an_app_inside_an_object(project: Path) -> None:
    (project / "shop_deep.py").write_text("from pythia_fast import App\nclass Apps:\n    orders = App('deep')\n")
    assert load_app("shop_deep:Apps.orders").name == "deep"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (":app", "names no module"),
        (
            "shop_ordrs:app",
            r"cannot find module 'shop_ordrs': there is no shop_ordrs.py .* did you mean shop_orders.py",
        ),
        ("shop_ordrs.py:app", r"there is no file .*shop_ordrs.py; did you mean shop_orders.py\?"),
        ("nowhere/x.py:app", r"there is no file .*nowhere/x.py$"),
        ("shop_orders:ap", r"module 'shop_orders' has no 'ap'; module 'shop_orders' holds the App app$"),
        ("shop_orders:limit", r"'shop_orders:limit' is of type int, not an App; .* holds the App app$"),
        ("shop_none:app", r"module 'shop_none' has no 'app'; module 'shop_none' holds no App$"),
        ("shop_none", r"does not say which App to run, and module 'shop_none' holds no App"),
        ("shop_two", r"holds the Apps first, second: write shop_two:NAME"),
        ("shop_two:", r"holds the Apps first, second: write shop_two:NAME"),
        ("shop_orders.deeper:app", r"cannot find module 'shop_orders.deeper'"),
    ],
)
def test_what_was_looked_for_is_named(project: Path, target: str, message: str) -> None:
    (project / "shop_orders.py").write_text(ONE_APP)
    (project / "shop_none.py").write_text("x = 1\n")
    (project / "shop_two.py").write_text("from pythia_fast import App\nfirst = App('a')\nsecond = App('b')\n")
    with pytest.raises(AppImportError, match=message) as caught:
        load_app(target)
    assert caught.value.__cause__ is None


def test_a_name_that_belongs_to_another_module_is_refused(project: Path) -> None:
    (project / "json.py").write_text(ONE_APP)
    with pytest.raises(AppImportError, match=r"that name belongs to .*json.*: rename the file"):
        load_app("json.py:app")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import no_such_helper\n", "No module named 'no_such_helper'"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("def broken(:\n", "SyntaxError"),
        ("import sys; sys.exit(0)\n", "SystemExit"),
    ],
)
def test_an_import_that_fails_shows_its_traceback(
    project: Path, capsys: pytest.CaptureFixture[str], source: str, text: str
) -> None:
    (project / "shop_broken.py").write_text(source)
    assert main(["run", "shop_broken:app"]) == ExitCode.IMPORT
    err = capsys.readouterr().err
    assert text in err
    assert "shop_broken.py" in err
    assert err.splitlines()[-1] == "error: importing module 'shop_broken' failed"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("from pythia_fast import App\napp = App('two words')\n", "shop_wrong.py line 2: "),
        (
            ONE_APP + "@app.batch_handler(source=None)\ndef f(batch): pass\n",
            "shop_wrong.py line 4: ",
        ),
    ],
)
def test_a_declaration_that_cannot_work_is_told_alone_with_its_line(
    project: Path, capsys: pytest.CaptureFixture[str], source: str, told: str
) -> None:
    (project / "shop_wrong.py").write_text(source)
    assert main(["run", "shop_wrong:app"]) == ExitCode.IMPORT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {told}")
    assert "'two words'" in line or "source=None" in line
