"""What `make docs` adds to mkdocs: pages from outside docs/, and formulas as MathML, drawn by browsers themselves."""

import html
import posixpath
import re
import unicodedata
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[#)\s])")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)

_LETTER = re.compile(r'<mi mathvariant="(double-struck|script)">([A-Z])</mi>')


def _site(path: str) -> str:
    """Where a file of the repository is in the site: README.md is its first page, docs/ its root."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def _repository(site: str) -> str:
    """The inverse of `_site`."""
    if site == "index.md":
        return "README.md"
    return f"docs/{site}" if (ROOT / "docs" / site).is_file() else site


def _target(page: str, link: str) -> str | None:
    """The repository's file that a page of the repository links to; None for other links."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    return path if "://" not in link and (ROOT / path).is_file() else None


def on_files(files: Files, *, config: Any) -> Files:
    """Add README.md as the first page, and whatever outside docs/ the pages link to."""
    waiting = ["README.md", *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if not path.startswith("docs/"):
            files.append(File.generated(config, _site(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            links = _LINK.findall((ROOT / path).read_text(encoding="utf-8"))
            waiting.extend(target for link in links if (target := _target(path, link)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links between files of the repository become links within the site."""
    here = page.file.src_uri
    source = _repository(here)

    def within(match: re.Match[str]) -> str:
        target = _target(source, match[1])
        return match[1] if target is None else posixpath.relpath(_site(target), posixpath.dirname(here) or ".")

    return _LINK.sub(within, markdown)


def on_page_content(content: str, **_: Any) -> str:
    r"""`\(x\)` and `\[x\]`, as arithmatex leaves them, become MathML."""
    return _FORMULA.sub(
        lambda match: _mathml(html.unescape(match[2]), display="block" if match[1] == "div" else "inline"), content
    )


def _mathml(formula: str, display: str) -> str:
    """A formula in TeX as MathML.

    Raises:
      ValueError: It holds a command that is not known, which would be shown as it is.
    """
    mathml = convert(formula, display=display)
    if "\\" in mathml:
        raise ValueError(f"not all of this formula can be shown: {formula}")
    # Browsers heed no variant but "normal": letters of an alphabet of their own are characters of their own.
    return _LETTER.sub(
        lambda match: f"<mi>{unicodedata.lookup(f'MATHEMATICAL {match[1].upper()} CAPITAL {match[2]}')}</mi>",
        mathml,
    )
