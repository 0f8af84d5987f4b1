"""peft's low-rank layer for the one linear layer of ours that gives three products."""

from peft.tuners.lora import Linear
from torch import Tensor


class QueryKeyValueUpdate(Linear):
    """W x becomes W x + alpha / rank * B (A x), handed over in parts as `attention.QueryKeyValue` does."""

    def forward(  # type: ignore[override]
        self, tokens: Tensor, with_query: bool = True
    ) -> tuple[Tensor, ...]:
        """(B, S, D) -> query, key and value, or key and value alone, each (B, S, D)."""
        parts = self.base_layer(tokens, with_query=with_query)
        if self.disable_adapters or self.merged:
            return parts
        for name in self.active_adapters:
            update = self.lora_B[name](self.lora_A[name](self.lora_dropout[name](tokens)))
            updates = update.chunk(3, dim=-1)[-len(parts) :]  # B whole: ZeRO-3 gathers what is called
            scaling = self.scaling[name]
            parts = tuple(part + scaling * more for part, more in zip(parts, updates, strict=True))
        return parts
