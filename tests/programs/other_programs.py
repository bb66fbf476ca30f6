"""Programs on sequences, graphs and functions, as in `vision_programs`."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from tests.programs.vision_programs import normal


def gpt(torch: Any, rng: Any) -> Any:
    nn, F = torch.nn, torch.nn.functional
    chars, width, heads, context = 17, 16, 4, 8

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
            self.register_buffer("mask", torch.tril(torch.ones(context, context)).view(
                1, 1, context, context))

        def forward(self, x: Any) -> Any:
            n, t, c = x.size()
            q, k, v = (y.view(n, t, heads, c // heads).transpose(1, 2)
                       for y in self.qkv(x).split(width, dim=2))
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            scores = scores.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf"))
            y = F.softmax(scores, dim=-1) @ v
            y = (y + F.scaled_dot_product_attention(q, k, v, is_causal=True)) / 2
            return self.proj(y.transpose(1, 2).contiguous().view(n, t, c))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln1, self.attention, self.ln2 = nn.LayerNorm(width), Attention(), \
                nn.LayerNorm(width)
            self.mlp = nn.ModuleDict({"fc": nn.Linear(width, 4 * width),
                                      "act": nn.GELU(approximate="tanh"),
                                      "proj": nn.Linear(4 * width, width)})

        def forward(self, x: Any) -> Any:
            x = x + self.attention(self.ln1(x))
            return x + self.mlp.proj(self.mlp.act(self.mlp.fc(self.ln2(x))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(chars, width), nn.Embedding(context, width)
            self.h = nn.ModuleList([Block() for _ in range(2)])
            self.ln = nn.LayerNorm(width)
            self.head = nn.Linear(width, chars, bias=False)
            self.wte.weight = self.head.weight
            self.apply(self._init)

        def _init(self, module: Any) -> None:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, mean=0.0, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

        def forward(self, idx: Any, targets: Any = None) -> Any:
            pos = torch.arange(0, idx.size(1), dtype=torch.long).unsqueeze(0)
            x = self.wte(idx) + self.wpe(pos)
            for block in self.h:
                x = block(x)
            logits = self.head(self.ln(x))
            if targets is None:
                return logits, None
            return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1),
                                           ignore_index=-1)

    model = GPT()
    groups = [{"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
              {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    x = rng.integers(0, chars, (4, context))

    def step() -> float:
        _, loss = model(torch.tensor(x), torch.tensor(np.roll(x, -1, 1)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            logits = model(torch.tensor(x[:1]))[0][:, -1, :] / 0.8
            best, _ = torch.topk(logits, min(5, logits.size(-1)))
            logits[logits < best[:, [-1]]] = -float("Inf")
            following = torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)
            assert torch.cat((torch.tensor(x[:1]), following), dim=1).shape == (1, context + 1)
        return loss.item()

    return model, step


def packed_lstm(torch: Any, rng: Any) -> Any:
    nn, F = torch.nn, torch.nn.functional

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(30, 8, padding_idx=0)
            self.rnn = nn.LSTM(8, 12, num_layers=2, batch_first=True, bidirectional=True)
            self.out = nn.Linear(24, 3)

        def forward(self, x: Any, lengths: Any) -> Any:
            packed = nn.utils.rnn.pack_padded_sequence(self.embed(x), lengths, batch_first=True,
                                                       enforce_sorted=False)
            out, (h, _) = self.rnn(packed)
            out, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
            return self.out(torch.cat((h[-2], h[-1]), dim=1)), out

    model = Net()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    x, y = rng.integers(1, 30, (5, 7)), rng.integers(0, 3, 5)

    def step() -> float:
        optimizer.zero_grad()
        logits, out = model(torch.tensor(x), torch.tensor([7, 3, 5, 1, 4]))
        loss = F.nll_loss(F.log_softmax(logits, -1), torch.tensor(y)) + out.pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return model, step


def deep_q(torch: Any, rng: Any) -> Any:
    nn = torch.nn
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
    target = copy.deepcopy(model)
    for p in target.parameters():
        p.requires_grad = False
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, amsgrad=True)
    s, s2, r = normal(rng, 8, 4), normal(rng, 8, 4), normal(rng, 8)
    a, going = rng.integers(0, 2, (8, 1)), rng.random(8) > 0.3
    begun = []

    def step() -> float:
        if not begun:
            target.load_state_dict(model.state_dict())
            begun.append(True)
        q = model(torch.tensor(s)).gather(1, torch.tensor(a))
        value, on = torch.zeros(8), torch.tensor(going)
        with torch.no_grad():
            value[on] = target(torch.tensor(s2)[on]).max(1).values
        loss = nn.SmoothL1Loss()(q, (torch.tensor(r) + 0.99 * value).unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 100)
        optimizer.step()
        for old, new in zip(target.parameters(), model.parameters(), strict=True):
            old.data.copy_(0.9 * old.data + 0.1 * new.data)
        return loss.item()

    return model, step


def graph_convolution(torch: Any, rng: Any) -> Any:
    nn, F = torch.nn, torch.nn.functional
    edges, x, y = rng.integers(0, 10, (2, 40)), normal(rng, 10, 6), rng.integers(0, 3, 10)

    class GCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

        def mean(self, h: Any, edges: Any) -> Any:
            source, to = edges
            degree = torch.zeros(10).index_add_(0, to, torch.ones(40)).clamp(min=1)
            out = torch.zeros(10, h.size(1)).scatter_add(
                0, to[:, None].expand(-1, h.size(1)), h[source])
            return out / degree[:, None]

        def forward(self, x: Any, edges: Any) -> Any:
            return self.mean(self.second(F.elu(self.mean(self.first(x), edges))), edges)

    model = GCN()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)

    def step() -> float:
        logits = model(torch.tensor(x), torch.tensor(edges))
        loss = F.cross_entropy(logits, torch.tensor(y), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return model, step


def gradient_penalty(torch: Any, rng: Any) -> Any:
    nn = torch.nn
    model = nn.Sequential(nn.Linear(5, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.0, 0.9))
    real, fake = normal(rng, 8, 5), normal(rng, 8, 5)
    mix = rng.random((8, 1)).astype(np.float32)

    def step() -> float:
        a, b, t = torch.tensor(real), torch.tensor(fake), torch.tensor(mix)
        between = (t * a + (1 - t) * b).requires_grad_(True)
        score = model(between)
        gradient = torch.autograd.grad(
            outputs=score, inputs=between, grad_outputs=torch.ones_like(score),
            create_graph=True, retain_graph=True, only_inputs=True)[0]
        penalty = ((gradient.norm(2, dim=1) - 1) ** 2).mean()
        loss = model(b).mean() - model(a).mean() + 10 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return model, step


def differential_equation(torch: Any, rng: Any) -> Any:
    nn = torch.nn
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5,
                                  line_search_fn="strong_wolfe")
    points = np.linspace(0, 1, 16, dtype=np.float32)[:, None]

    def closure() -> Any:
        optimizer.zero_grad()
        x = torch.tensor(points).requires_grad_()
        u = model(x)
        du = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
        ddu = torch.autograd.grad(du.sum(), x, create_graph=True)[0]
        loss = ((ddu + u) ** 2).mean() + (model(torch.zeros(1, 1)) ** 2).sum()
        loss.backward()
        return loss

    return model, lambda: optimizer.step(closure).item()


def straight_through(torch: Any, rng: Any) -> Any:
    nn, F = torch.nn, torch.nn.functional

    class Sign(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, scale: float) -> Any:
            ctx.save_for_backward(x)
            ctx.scale = scale
            return torch.sign(x) * scale

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            x, = ctx.saved_tensors
            return g * (x.abs() <= 1).to(g.dtype) * ctx.scale, None

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.empty(6, 6))
            nn.init.xavier_uniform_(self.w)
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))
            self.encoder = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True), 1)

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return self.encoder(F.linear(x, Sign.apply(self.w, 0.5)))

    model = Net()
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-2)
    x, anchor = normal(rng, 3, 4, 6), normal(rng, 3, 24)
    seen: list[Any] = []

    def step() -> float:
        handle = model.register_forward_hook(lambda m, i, out: seen.append(tuple(out.shape)))
        e, a = model(torch.tensor(x)).reshape(3, -1), torch.tensor(anchor)
        loss = (nn.TripletMarginLoss()(e, a, e.roll(1, 0).detach())
                + nn.CosineEmbeddingLoss()(e, a, torch.tensor([1, -1, 1])))
        handle.remove()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert int(model.calls) == len(seen) and seen[-1] == (3, 4, 6)
        return loss.item()

    return model, step


def echo_state(torch: Any, rng: Any) -> Any:
    W, win = normal(rng, 30, 30).astype(np.float64), normal(rng, 30, 1).astype(np.float64)
    u = np.sin(np.arange(120) / 5)

    def step() -> float:
        w = torch.tensor(W)
        w = w * (0.9 / torch.linalg.eigvals(w).abs().max())
        h, states = torch.zeros(30, 1, dtype=torch.float64), []
        for t in range(100):
            h = torch.tanh(torch.tensor(win) * float(u[t]) + w @ h)
            states.append(h)
        X, Y = torch.cat(states, 1), torch.tensor(u[1:101])[None]
        eye = torch.eye(30, dtype=torch.float64)
        readout = Y @ X.T @ torch.linalg.inv(X @ X.T + 1e-2 * eye)
        return ((readout @ X - Y) ** 2).mean().sqrt().item()

    return torch.nn.Identity(), step
