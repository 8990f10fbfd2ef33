"""`docs/reliability.md` names tests that exist."""

import re

from experiments import ROOT


def test_every_test_named_on_the_page_exists():
    page = (ROOT / "docs" / "reliability.md").read_text()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"(?:`|::)(test_\w+)\b(?!\.py)(…?)", page)  # … where the page cuts a name short
    assert len(named) > 25
    for name, cut in named:
        assert re.search(rf"def {name}" + ("" if cut else r"\("), tests), name
    for file in re.findall(r"`(tests/[\w/]+\.py)", page):
        assert (ROOT / file).is_file(), file
