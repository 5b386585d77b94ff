"""The files of a monthly report: HTML, CSV beside each chart, JSON, the Users' statements, and PDF if asked for.

Everything is made in a folder of its own beside the target and moved in when all is there; an interrupted run
leaves the last report as it was. The same logs give the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from tmm_core.errors import TMMError
from tmm_core.operations.page import render_html, write_csv
from tmm_core.operations.report.figures import Figures, User, plain_values
from tmm_core.operations.report.page import report_page, tables_of
from tmm_core.operations.report.statement import statement_page, statement_table

#: What a report consists of: only these are replaced in a folder that is already there.
_PARTS = ("report.html", "report.json", "report.pdf", "csv", "statements")
_LONGEST_NAME = 60


def write_report(figures: Figures, folder: Path, *, statements: bool = True, pdf: bool = False) -> list[Path]:
    """Write the report into a folder, in place of an earlier one; return the files a reader opens first.

    The folder is made if it is not there. A report with pseudonyms has no statements: each would give one away.

    Raises
    ------
    TMMError
        What pages or PDF are made with is not installed; or the folder holds something else under a name that
        the report needs.
    OSError
        The folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as made:
        work = Path(made)
        page = report_page(figures)
        html = render_html(page)
        _write(work / "report.html", html)
        _write(work / "report.json", as_json(figures))
        (work / "csv").mkdir()
        for path, table in tables_of(page, figures).items():
            _write(work / path, write_csv(table))
        if statements and not figures.anonymised:
            (work / "statements").mkdir()
            for name, user in statements_of(figures):
                _write(work / "statements" / f"{name}.html", render_html(statement_page(figures, user)))
                _write(work / "statements" / f"{name}.csv", write_csv(statement_table(figures, user)))
        if pdf:
            write_pdf(html, work / "report.pdf")
        for part in _PARTS:
            _replace(work / part, folder / part)
    return [folder / part for part in _PARTS if (folder / part).exists()]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _replace(new: Path, old: Path) -> None:
    """Put a new part in place of an old one; an old one that is not in the new report goes."""
    if old.is_symlink():
        raise TMMError(f"{old} is a symbolic link, expected a file or folder of an earlier report: remove it")
    if old.is_dir():
        # Only what a report writes is deleted.
        strange = [each for each in old.iterdir() if each.suffix not in (".csv", ".html") or each.is_dir()]
        if strange:
            raise TMMError(f"{strange[0]} is not of a report: choose another folder with -o, or remove it")
        shutil.rmtree(old)
    elif old.exists():
        old.unlink()
    if new.exists():
        os.replace(new, old)


def as_json(figures: Figures) -> str:
    """Return all figures as JSON: ASCII only, keys in a fixed order."""
    values = plain_values(figures)
    if not figures.candidates:
        del values["candidates"]  # nothing of it where none was tried
    return json.dumps({"format": 1, **values}, indent=1, allow_nan=False) + "\n"


def statements_of(figures: Figures) -> Iterator[tuple[str, User]]:
    """Yield each User that has a statement, with the name of its files."""
    users = sorted((user for user in figures.users if not user.is_unknown), key=lambda user: user.user)
    yield from zip(file_names([user.user for user in users]), users, strict=True)


def file_names(names: list[str]) -> list[str]:
    """Return a safe file name for each name: lower-case letters, digits and ``-``, none of them twice.

    Examples
    --------
    >>> file_names(["Northern Energy", "../Northern  energy", "<>", "Équipe 1"])
    ['northern-energy', 'northern-energy-2', 'user', 'equipe-1']
    """
    taken: set[str] = set()
    found = []
    for name in names:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        base = "-".join("".join(c if c.isalnum() else " " for c in plain).split())[:_LONGEST_NAME].rstrip("-")
        # Names that Windows keeps for devices are no file names there.
        base = f"user-{base}" if base in _DEVICES else base or "user"
        candidate, number = base, 1
        while candidate in taken:
            number += 1
            candidate = f"{base}-{number}"
        taken.add(candidate)
        found.append(candidate)
    return found


_DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *[f"{kind}{number}" for kind in ("com", "lpt") for number in range(10)],
}


def write_pdf(html: str, path: Path) -> None:
    """Write a page as PDF, without any access to network or files.

    TMMError if WeasyPrint, or a library it needs, is not installed.
    """
    try:
        import weasyprint
    except (ImportError, OSError) as error:
        raise TMMError(
            f"found no working WeasyPrint, which PDF is made with ({error}): pip install 'tmm-core[pdf]', or print "
            "report.html from a browser"
        ) from None

    def refuse(url: str, *_: object, **__: object) -> object:
        raise ValueError(f"{url}: a report refers to nothing")

    weasyprint.HTML(string=html, url_fetcher=refuse, base_url="report:").write_pdf(
        path, pdf_identifier=b"tmm-core-report"
    )
