"""The ranking head in the formats in which models are run."""

import pytest
import torch

from recalign.api import ranking_head
from recalign.api.ranking_head import head_scores


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_have_the_format_of_the_heads_weights_under_autocast_too(dtype):
    torch.manual_seed(0)
    head, states = ranking_head(8), torch.randn(5, 8).to(dtype)
    torch.nn.init.normal_(head[2].weight)
    plain = head_scores(head, states)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = head_scores(head, states)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, plain)
    torch.testing.assert_close(plain, head[2](torch.nn.functional.gelu(head[0](states.float())))[:, 0])
