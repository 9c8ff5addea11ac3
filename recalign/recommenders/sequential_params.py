"""What SASRec and BERT4Rec declare alike."""

from __future__ import annotations

from recalign.api import Field, Params


class SequentialParams(Params):
    """Parameters of SASRec and BERT4Rec, and of their training."""

    hidden: int = Field(64, ge=8, description="width of the embeddings")
    layers: int = Field(2, ge=1, description="transformer layers")
    heads: int = Field(2, ge=1, description="attention heads; they share the width")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout")
    history: int = Field(
        50, ge=1, description="maximum number of items of a history that the model reads, the last ones"
    )
    epochs: int = Field(200, ge=1, description="maximum number of passes over the users")
    patience: int = Field(20, ge=1, description="epochs without a better validation ndcg@10 before it stops")
    batch_size: int = Field(128, ge=1, description="sequences per update")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate of Adam")
    valid_rows: int = Field(1000, ge=1, description="validation rows, the first ones")
