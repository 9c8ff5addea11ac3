"""The policy that a training starts from: loaded as its options say, with the modules that its objective needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from recalign.models.checkpointing import checkpoint_gradients
from recalign.models.policy import Policy, load_policy

if TYPE_CHECKING:
    from recalign.api import Backbone, Objective
    from recalign.data.dataset import PreparedDataset
    from recalign.models.hardware import Dtype, Hardware
    from recalign.models.lora import LoraOptions
    from recalign.text.chat_templates import Scalar
    from recalign.training.training_options import TrainingOptions


class ModelOptions(Protocol):
    """What the options of `sft` and `align` say of the model alike; see `load_policy`."""

    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def training(self) -> TrainingOptions: ...  # noqa: D102
    @property
    def template(self) -> str | None: ...  # noqa: D102
    @property
    def template_vars(self) -> Mapping[str, Scalar]: ...  # noqa: D102
    @property
    def lora(self) -> LoraOptions | None: ...  # noqa: D102
    @property
    def dtype(self) -> Dtype: ...  # noqa: D102
    @property
    def trust_remote_code(self) -> bool: ...  # noqa: D102
    @property
    def hardware(self) -> Hardware: ...  # noqa: D102
    @property
    def max_length(self) -> int | None: ...  # noqa: D102


def starting_policy(
    options: ModelOptions,
    dataset: PreparedDataset,
    objective: Objective,
    *,
    backbone: Backbone | None = None,
    texts: Sequence[str] = (),
) -> Policy:
    """Load the policy, ready to be trained, and hand the objective its modules.

    Args:
        options: which model, and how it is trained.
        dataset: whose catalogue it writes.
        objective: what it is trained by.
        backbone: computes the embeddings of added item tokens, or None.
        texts: what a tokenizer that is made for the model must be able to write, besides titles and prompts.

    Raises:
        UserError: see `load_policy`, `checkpoint_gradients`; stored modules of another shape.
    """
    policy = load_policy(
        options.model,
        dataset,
        template=options.template,
        template_vars=options.template_vars,
        lora=options.lora,
        trust_remote_code=options.trust_remote_code,
        dtype=options.dtype,
        seed=options.training.seed,
        trainable=True,
        max_length=options.max_length,
        backbone=backbone,
        hardware=options.hardware,
        texts=texts,
    )
    if options.training.gradient_checkpointing:
        checkpoint_gradients(policy.model)
    objective.modules = policy.attach(objective.module_makers, options.training.seed)
    return policy
