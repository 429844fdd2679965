"""The reports of the committed studies, written for the site: their plots and tables stand in its pages."""

from pathlib import Path

import sb3_softac.study
from sb3_softac.study import read_study
from sb3_softac.study.report import write_report

STUDIES = Path(__file__).parent.parent / "benchmarks" / "studies"
CODE = Path(sb3_softac.study.__file__).parent


def write_reports(folder: Path) -> None:
    """
    :param folder: Folder to write to, one folder per study in it.
    """
    for path in sorted(STUDIES.glob("*.yml")):
        study = read_study(path)
        results = [file for file in study.results.rglob("*") if file.is_file()]
        page = folder / path.stem / "index.html"
        newest = max(file.stat().st_mtime for file in (path, *results, *CODE.iterdir()) if file.is_file())
        if results and not (page.exists() and page.stat().st_mtime > newest):
            write_report(study, folder / path.stem)
