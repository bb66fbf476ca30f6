"""A character-level GPT: it reads a text and goes on writing like it (Radford et al., 2019).

    python examples/transformer.py [STEPS [TEXTFILE]]

Without a file it reads facula's own documentation.
"""

import pathlib
import sys
import time

import facula as torch
import facula.nn as nn
import facula.nn.functional as F
import facula.optim as optim

LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 4, 4, 128, 64, 12


class Attention(nn.Module):
    """Causal self-attention of x [N, T, WIDTH]."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = (y.view(n, t, HEADS, WIDTH // HEADS).transpose(1, 2)
                   for y in self.qkv(x).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)     # [N, HEADS, T, WIDTH/HEADS]
        return self.out(y.transpose(1, 2).reshape(n, t, WIDTH))


class Block(nn.Module):
    """Attention and a two-layer network, each behind a norm and around a residual."""

    def __init__(self):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(),
                                 nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Characters [N, T] to logits of the next ones [N, T, characters]."""

    def __init__(self, characters):
        super().__init__()
        self.token = nn.Embedding(characters, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, characters, bias=False)
        self.head.weight = self.token.weight
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, x):
        x = self.token(x) + self.position(torch.arange(x.shape[1]))
        return self.head(self.norm(self.blocks(x)))

    @torch.no_grad()
    def write(self, seen, count, temperature=0.8):
        """Sample `count` characters after those in `seen` [T]."""
        for _ in range(count):
            logits = self(seen[None, -CONTEXT:])[0, -1] / temperature
            seen = torch.cat([seen, torch.multinomial(F.softmax(logits, -1), 1)])
        return seen


def main(steps=1000, path=None, sample=200):
    torch.manual_seed(0)
    root = pathlib.Path(__file__).resolve().parent.parent
    files = [pathlib.Path(path)] if path else [root / "README.md", root / "CONTRIBUTING.md",
                                               *sorted((root / "docs").glob("*.md"))]
    text = "\n".join(f.read_text(encoding="utf-8") for f in files)
    characters = sorted(set(text))
    number = {c: i for i, c in enumerate(characters)}
    data = torch.tensor([number[c] for c in text])

    model = GPT(len(characters))
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = optim.AdamW([{"params": matrices, "weight_decay": 0.1},
                             {"params": others, "weight_decay": 0.0}], lr=1e-3, betas=(0.9, 0.99))
    count = sum(p.numel() for p in model.parameters())
    print(f"{len(text)} characters, {len(characters)} different; {count} parameters")
    window = torch.arange(CONTEXT)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        at = torch.randint(len(data) - CONTEXT - 1, (BATCH, 1)) + window
        loss = F.cross_entropy(model(data[at]).flatten(0, 1), data[at + 1].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step}: loss {loss.item():.3f}, "
                  f"{1e3 * (time.perf_counter() - start) / step:.1f} ms a step")
    seen = model.write(torch.tensor([number[c] for c in "The "]), sample)
    print("".join(characters[i] for i in seen.tolist()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000,
         sys.argv[2] if len(sys.argv) > 2 else None)
