"""`docs/reliability.md` names tests that exist."""

import re

from conftest import HERE, ROOT


def test_every_test_named_on_the_page_exists():
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`((?:[\w/]+\.py::)?…?_?test_\w+(?:\.py)?(?:::\w+)?…?|tests/[\w/]+\.py)`", page)
    assert len(named) > 25
    everything = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for name in named:
        file, _, test = name.rpartition("::") if "::" in name else (name, "", "") if ".py" in name else ("", "", name)
        candidates = [ROOT / file, HERE / file.removeprefix("tests/"), ROOT / "tests" / "optimizers" / file]
        texts = [everything[path] for path in candidates if path in everything] if file else list(everything.values())
        assert texts, name
        pattern = rf"def {test.rstrip('…')}" + (r"\w*\(" if test.endswith("…") else r"\(")
        assert not test or any(re.search(pattern, text) for text in texts), name
