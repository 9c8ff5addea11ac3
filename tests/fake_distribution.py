"""Installed packages made up for a test: modules and a dist-info with entry points, in a folder put on sys.path."""

from pathlib import Path


def install(folder: Path, package: str, entry_points: dict[str, dict[str, str]], modules: dict[str, str]) -> None:
    """Write a distribution into `folder`.

    Args:
        folder: put it on sys.path.
        package: the distribution's name.
        entry_points: group -> name -> module.
        modules: module -> source.
    """
    info = folder / f"{package.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n", "utf-8")
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in points.items())
        for group, points in entry_points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups), "utf-8")
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source, "utf-8")


REWARD = '''"""A made-up reward."""
import numpy as np
from recalign.api import Field, Params, Metric, hookimpl


class LengthParams(Params):
    """Parameters."""

    weight: float = Field(1.0, ge=0, description="multiplies the value")


class Length(Metric):
    """How many positions the list has."""

    Params = LengthParams

    def score(self, lists):
        return self.params.weight * lists.lengths.astype(np.float64)


@hookimpl
def recalign_metric():
    return Length
'''
