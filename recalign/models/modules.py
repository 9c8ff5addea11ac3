"""Modules that are trained beside the language model (a head, a projector): attached, saved, restored.

They are children of the model, so that the optimizer, clipping and data parallelism see their parameters; their weights
lie in a file of their own, so that the model's files stay what transformers and peft write.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from recalign.errors import UserError

MODULES_FILE = "modules.safetensors"
PLACE = "modules_beside"  # the child of the model that holds them

Model = PreTrainedModel | PeftModel


def attach(model: Model, name: str, make: Callable[[int], nn.Module], *, seed: int, folder: Path | None) -> nn.Module:
    """Put a trained module beside a model, with the weights that a folder has for it.

    Args:
        model: the language model.
        name: of the module, among those of the model.
        make: makes the module for a width of hidden states.
        seed: of new weights.
        folder: where the model was loaded from, or None.

    Returns:
        The module, on the model's device; the one that is attached already where there is one of this name.

    Raises:
        UserError: the folder's weights are broken or belong to a module of another shape.
    """
    if not hasattr(model, PLACE):
        model.add_module(PLACE, nn.ModuleDict())
    beside = getattr(model, PLACE)
    if name not in beside:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = make(int(model.config.get_text_config().hidden_size))
        beside[name] = module.to(next(model.parameters()).device)
        known = {} if folder is None else stored(folder, name)
        if known:
            _fill(beside[name], known, name, folder)
    return beside[name]


def stored(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the weights that a model's folder has for one module; none where it has no such module.

    Raises:
        UserError: the file is broken.
    """
    if not (folder / MODULES_FILE).is_file():
        return {}
    mine = f"{name}."
    return {key.removeprefix(mine): value for key, value in _read(folder).items() if key.startswith(mine)}


@contextlib.contextmanager
def swapped(model: Model, modules: nn.ModuleDict) -> Iterator[None]:
    """Let the modules beside a model have the weights of a copy of them; no tensor is changed.

    Args:
        model: the language model.
        modules: a copy of all modules beside it.
    """
    pairs = list(zip(getattr(model, PLACE).modules(), modules.modules(), strict=True))

    def swap() -> None:
        for one, other in pairs:
            one._parameters, other._parameters = other._parameters, one._parameters

    swap()
    try:
        yield
    finally:
        swap()


def freeze_language_model(model: Model) -> None:
    """Let nothing but the modules beside a model be trained."""
    model.requires_grad_(False)
    getattr(model, PLACE).requires_grad_(True)


def module_names(folder: Path) -> frozenset[str]:
    """Name the modules whose weights a model's folder has.

    Raises:
        UserError: the file is broken.
    """
    if not (folder / MODULES_FILE).is_file():
        return frozenset()
    with _blamed(folder), safe_open(folder / MODULES_FILE, "pt") as file:
        return frozenset(key.partition(".")[0] for key in file.keys())  # noqa: SIM118 - a file is no dict


def attached(model: Model) -> dict[str, nn.Module]:
    """Return the modules beside a model, by name."""
    return dict(getattr(model, PLACE, {}).items())


def language_model_state(model: Model) -> dict[str, torch.Tensor]:
    """Return the weights of the language model alone."""
    return {key: value for key, value in model.state_dict().items() if not key.startswith(f"{PLACE}.")}


def save_modules(model: Model, folder: Path) -> None:
    """Write the weights of the modules beside a model; nothing where there are none."""
    if attached(model):
        state = getattr(model, PLACE).state_dict()
        save_file({key: value.detach().contiguous().cpu() for key, value in state.items()}, folder / MODULES_FILE)


def restore_modules(model: Model, folder: Path) -> None:
    """Put the weights that `save_modules` wrote back into the modules beside a model.

    Raises:
        UserError: the file is missing, broken, or of other modules.
    """
    if attached(model):
        _fill(getattr(model, PLACE), _read(folder), "the modules beside the model", folder)


def _read(folder: Path) -> dict[str, torch.Tensor]:
    with _blamed(folder):
        return load_file(folder / MODULES_FILE)


@contextlib.contextmanager
def _blamed(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder / MODULES_FILE} cannot be read: {error}.", "Use another checkpoint, or train again."
        ) from None


def _fill(module: nn.Module, state: dict[str, torch.Tensor], name: str, folder: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"{folder / MODULES_FILE} has other weights than '{name}' needs: {str(error).splitlines()[-1].strip()}.",
            "Train again with the same parameters, or start from a model without such a module.",
        ) from None
