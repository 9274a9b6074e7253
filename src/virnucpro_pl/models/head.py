"""The head: an MLP on the embeddings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OTHERS, VIRUS = 0, 1
"""The two classes, in the order of the outputs of the published model."""
_FEWEST_ROWS = 4  # for fewer rows MKL uses another routine, with other last bits


class Head(nn.Module):
    """MLP on the concatenated DNA and protein embeddings; parameter names are those of the published model."""

    def __init__(self, num_inputs: int, hidden_dim: int = 512, num_classes: int = 2, dropout: float = 0.5):
        super().__init__()
        self.hidden_layer = nn.Linear(num_inputs, hidden_dim)
        self.bn1 = nn.BatchNorm1d(hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.output_layer = nn.Linear(hidden_dim, num_classes)

    @property
    def num_inputs(self) -> int:
        """Return the width of the embeddings."""
        return self.hidden_layer.in_features

    def forward(self, embedding: Tensor) -> Tensor:
        """Return logits, ``others`` first: (N, num_inputs) -> (N, num_classes)."""
        return self.output_layer(  # type: ignore[no-any-return]
            self.dropout(F.relu(self.bn1(self.hidden_layer(embedding))))
        )

    def scores(self, embedding: Tensor) -> Tensor:
        """Return the softmax of the logits in float32: (N, num_inputs) -> (N, num_classes)."""
        missing = max(0, _FEWEST_ROWS - len(embedding))
        logits = self.forward(F.pad(embedding, (0, 0, 0, missing)))[: len(embedding)]
        return torch.softmax(logits.float(), dim=-1)
