"""BERT (Devlin et al., 2019) as Grounding DINO reads prompts with it: every token has its own mask and position."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BertEmbeddings(nn.Module):
    """Token, position and segment embeddings; a prompt is one segment, the first."""

    def __init__(self, vocab_size: int, hidden_size: int, max_position_embeddings: int, layer_norm_eps: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, hidden_size)
        self.position_embeddings = nn.Embedding(max_position_embeddings, hidden_size)
        self.token_type_embeddings = nn.Embedding(2, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        words = self.word_embeddings(input_ids) + self.token_type_embeddings.weight[0]
        return self.LayerNorm(words + self.position_embeddings(position_ids))


class BertSelfAttention(nn.Module):
    """The projections and the attention itself, without the projection of what it gives."""

    def __init__(self, hidden_size: int, num_attention_heads: int) -> None:
        super().__init__()
        self.num_heads = num_attention_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, head_dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.split_heads(self.query(x)), self.split_heads(self.key(x)), self.split_heads(self.value(x))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class BertOutput(nn.Module):
    """What ends both halves of a layer: a linear layer, the residual connection and a layer norm."""

    def __init__(self, input_size: int, hidden_size: int, layer_norm_eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(input_size, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + shortcut)


class BertLayer(nn.Module):
    """Masked self-attention and an MLP, each followed by a residual connection and a layer norm."""

    def __init__(
        self, hidden_size: int, num_attention_heads: int, intermediate_size: int, layer_norm_eps: float
    ) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {
                "self": BertSelfAttention(hidden_size, num_attention_heads),
                "output": BertOutput(hidden_size, hidden_size, layer_norm_eps),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(hidden_size, intermediate_size)})
        self.output = BertOutput(intermediate_size, hidden_size, layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class BertEncoder(nn.Module):
    """Token ids → one feature for each token.

    Args:
        vocab_size: number of token ids.
        hidden_size: channels of the features.
        num_hidden_layers: layers.
        num_attention_heads: attention heads; they divide `hidden_size`.
        intermediate_size: hidden width of the MLPs.
        max_position_embeddings: number of positions.
        layer_norm_eps: added to the variance in every layer norm.

    Raises:
        ValueError: `hidden_size` does not split into the heads.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        intermediate_size: int,
        max_position_embeddings: int,
        layer_norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        if hidden_size % num_attention_heads:
            raise ValueError(f"{hidden_size} channels do not split into {num_attention_heads} attention heads.")
        self.embeddings = BertEmbeddings(vocab_size, hidden_size, max_position_embeddings, layer_norm_eps)
        layers = [
            BertLayer(hidden_size, num_attention_heads, intermediate_size, layer_norm_eps)
            for _ in range(num_hidden_layers)
        ]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, input_ids: Tensor, self_attention_mask: Tensor, position_ids: Tensor) -> Tensor:
        """
        Args:
            input_ids: (B, T) int64.
            self_attention_mask: (B, T, T) bool, True where the token of the row may attend to that of the column. A
                token that may attend to none attends to itself, so that its feature is a number.
            position_ids: (B, T) int64, less than `max_position_embeddings`.

        Returns:
            (B, T, hidden_size).

        Raises:
            ValueError: shapes that do not fit together, or a mask that is not bool.
        """
        if input_ids.ndim != 2 or position_ids.shape != input_ids.shape:
            raise ValueError(
                f"Expected input_ids and position_ids of one shape (B, T), "
                f"got {tuple(input_ids.shape)} and {tuple(position_ids.shape)}."
            )
        batch, length = input_ids.shape
        if self_attention_mask.shape != (batch, length, length) or self_attention_mask.dtype != torch.bool:
            raise ValueError(
                f"Expected a bool self_attention_mask of shape {(batch, length, length)}, "
                f"got {self_attention_mask.dtype} {tuple(self_attention_mask.shape)}."
            )
        sees_nothing = ~self_attention_mask.any(dim=2, keepdim=True)
        itself = torch.eye(length, dtype=torch.bool, device=input_ids.device)
        mask = (self_attention_mask | (sees_nothing & itself))[:, None]  # (B, 1, T, T), the same for all heads
        x = self.embeddings(input_ids, position_ids)
        for layer in self.encoder.get_submodule("layer").children():
            x = layer(x, mask)
        return x
