"""What recalign runs on, and what is wrong with it: versions, devices, cores, memory, disk, plugins."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from recalign import __version__, console
from recalign.commands.shared_options import JsonOption, QuietOption
from recalign.errors import UserError
from recalign.threads import choose, free_cores, usable_cores
from recalign.workspace import home

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "polars",
    "pyarrow",
    "numpy",
    "scipy",
    "pydantic",
    "typer",
    "rich",
    "pluggy",
    "bitsandbytes",
    "gguf",
    "openai",
)
VARIABLES = (
    "RECALIGN_HOME",
    "RECALIGN_CACHE",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "TOKENIZERS_PARALLELISM",
    "WORLD_SIZE",
)
GB, LITTLE = 1e9, 1.0
"""Bytes of a gigabyte, and gigabytes of disk or memory below which a run is likely to fail."""


def doctor(json: JsonOption = False, quiet: QuietOption = False) -> dict[str, Any]:
    """Look at what recalign runs on, name what is wrong, and gather what a report of an issue needs.

    Examples:
    - recalign doctor

    - recalign doctor --json > doctor.json
    """
    found: dict[str, Any] = {
        "recalign": __version__,
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "packages": _packages(),
        "devices": _devices(),
        "cores": _cores(),
        "memory_gb": _memory(),
        "workspace": _workspace(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "plugins": _plugins(),
    }
    found["problems"] = _problems(found)
    _show(found)
    return found


def _packages() -> dict[str, str | None]:
    """Version of each package that recalign uses; None where it is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _devices() -> list[dict[str, Any]]:
    """Where models can compute, the one that `--device auto` takes first."""
    import torch

    found: list[dict[str, Any]] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            found.append({"device": f"cuda:{index}", "name": name, "free_gb": free / GB, "total_gb": total / GB})
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": "Apple GPU"})
    return [*found, {"device": "cpu", "name": platform.processor() or platform.machine()}]


def _cores() -> dict[str, Any]:
    """Cores, how many are free now, and how many threads models take."""
    return {
        "usable": usable_cores(),
        "free": free_cores(),
        "threads": choose(small=False)[0],
        "threads_of_small_models": choose(small=True)[0],
    }


def _memory() -> dict[str, float]:
    import psutil

    memory = psutil.virtual_memory()
    return {"total": memory.total / GB, "available": memory.available / GB}


def _workspace() -> dict[str, Any]:
    """Where runs go, the room there, and whether it can be written."""
    import shutil

    place = home()
    existing = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"recalign")
            file.flush()
        problem = ""
    except OSError as error:
        problem = error.strerror or str(error)
    return {
        "path": str(place),
        "exists": place.is_dir(),
        "free_gb": shutil.disk_usage(existing).free / GB,
        "writable": not problem,
        "problem": problem,
    }


def _plugins() -> dict[str, Any]:
    """Import all plugins; how many there are by package, and what is wrong with any."""
    from recalign.plugins.registry import find, list_plugins

    entries = list_plugins()
    packages: dict[str, dict[str, Any]] = {}
    problems = []
    for entry in entries:
        told = packages.setdefault(entry.package, {"version": entry.version, "plugins": 0})
        told["plugins"] += 1
        try:
            find(entry.kind, entry.name)
        except UserError as error:
            problems.append({"kind": entry.kind, "name": entry.name, "package": entry.package, "problem": error.what})
    return {"packages": packages, "problems": problems}


def _problems(found: dict[str, Any]) -> list[str]:
    """One line for each thing that is likely to stop a run."""
    problems = [each["problem"] for each in found["plugins"]["problems"]]
    workspace = found["workspace"]
    if not workspace["writable"]:
        problems.append(f"The workspace {workspace['path']} cannot be written: {workspace['problem']}.")
    if workspace["free_gb"] < LITTLE:
        problems.append(f"The disk of the workspace has {workspace['free_gb']:.2f} GB left.")
    if found["memory_gb"]["available"] < LITTLE:
        problems.append(f"{found['memory_gb']['available']:.2f} GB of memory are left.")
    return list(dict.fromkeys(problems))


def _show(found: dict[str, Any]) -> None:
    installed = {name: version for name, version in found["packages"].items() if version is not None}
    cores, memory, workspace = found["cores"], found["memory_gb"], found["workspace"]
    access = "can be written" if workspace["writable"] else f"cannot be written: {workspace['problem']}"
    plugins = [f"{name} {told['version']}: {told['plugins']}" for name, told in found["plugins"]["packages"].items()]
    rows = {
        "recalign": f"{found['recalign']}, Python {found['python']}",
        "system": found["system"],
        "packages": ", ".join(f"{name} {version}" for name, version in installed.items()),
        "not installed": ", ".join(name for name in found["packages"] if name not in installed),
        "devices": ", ".join(_device(each) for each in found["devices"]),
        "cores": f"{cores['usable']} usable, {cores['free']} free now; models take {cores['threads']} threads, small "
        f"ones {cores['threads_of_small_models']}",
        "memory": f"{memory['available']:.1f} of {memory['total']:.1f} GB available",
        "workspace": f"{Path(workspace['path'])}: {workspace['free_gb']:.1f} GB free, {access}",
        "environment": ", ".join(f"{name}={value}" for name, value in found["environment"].items()),
        "plugins": ", ".join(plugins),
    }
    table = Table(show_header=False)
    for name, told in rows.items():
        if told:
            table.add_row(name, Text(told))
    console.show(table)
    for problem in found["problems"]:
        console.warn(problem)
    console.say("No problem found." if not found["problems"] else "A report of an issue needs all of this: --json.")


def _device(device: dict[str, Any]) -> str:
    room = f", {device['free_gb']:.1f} of {device['total_gb']:.1f} GB free" if "total_gb" in device else ""
    return f"{device['device']} ({device['name']}{room})"
