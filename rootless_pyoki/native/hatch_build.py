"""The build hook (hatchling, `[tool.hatch.build.targets.wheel.hooks.custom]`).

A wheel carries: the extension and the gate inside the package; the launcher as the script `pyoki`;
the hot bundle and the gate as data in lib/pyoki/CACHE_TAG/. An editable install has its extension
and gate in the checkout and no bundle, which would not follow the sources.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from rootless_pyoki.native import build, bundle


class NativeBuild(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """version: "standard" or "editable"; what goes into the wheel is told in build_data."""
        self.folder = Path(tempfile.mkdtemp(prefix="pyoki-build-"))
        try:
            if version == "editable":
                build.build_in_place()
            else:
                self.make_parts(build_data)
            launcher = build.build_launcher(self.folder / "pyoki")
        except build.BuildError as error:
            shutil.rmtree(self.folder)
            sys.exit(f"error: {error}")
        build_data["shared_scripts"][str(launcher)] = "pyoki"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def make_parts(self, build_data: dict[str, Any]) -> None:
        extension = build.build_extension(self.folder / build.EXTENSION)
        gate = build.build_gate(self.folder / "gate")
        facts = self.folder / "_build.py"
        facts.write_text(f'COMMIT = "{build.commit()}"\n')
        hot = bundle.make(generated={"rootless_pyoki._build": facts.read_text()})
        for name, content in hot.items():
            (self.folder / name).write_bytes(content)

        inside = {extension: "native", gate: "native", facts: "."}
        for part, room in inside.items():
            build_data["force_include"][str(part)] = f"rootless_pyoki/{room}/{part.name}"
        for part in (gate, *(self.folder / name for name in hot)):
            build_data["shared_data"][str(part)] = f"lib/pyoki/{build.CACHE_TAG}/{part.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
