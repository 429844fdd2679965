"""
Build steps that setuptools has no declaration for: files that must lie beside the package, and libraries that are no modules.

The start-up files are read only at the top of site-packages, also in an editable install. The hyperparameters live at the top
of the repository, where RL Zoo's users look for them, and inside the package once it is built. The C libraries (setup.py) are
loaded by ctypes: their names depend on no version of Python, and one wheel for each platform serves all versions.
"""

from pathlib import Path

from setuptools import Extension
from setuptools.command.bdist_wheel import bdist_wheel as _bdist_wheel
from setuptools.command.build_ext import build_ext as _build_ext
from setuptools.command.build_py import build_py as _build_py

START_UP_FILES = ("sb3_softac.pth", "sb3_softac.start")


class build_py(_build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            # The wheel of an editable install is laid out in the folder that "install" would copy to.
            top = Path(self.get_finalized_command("install").install_lib)
        else:
            top = Path(self.build_lib)
            for folder in ("hyperparams", "hyperparams/presets"):
                self._copy(sorted(Path(folder).glob("*.yml")), top / "sb3_softac" / folder)
        self._copy([Path(name) for name in START_UP_FILES], top)

    def _copy(self, files: list[Path], folder: Path) -> None:
        self.mkpath(str(folder))
        for file in files:
            self.copy_file(str(file), str(folder / file.name))


class build_ext(_build_ext):
    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return ext.export_symbols


class bdist_wheel(_bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]
