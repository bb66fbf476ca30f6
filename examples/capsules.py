"""A capsule network with dynamic routing on MNIST (Sabour, Frosst and Hinton, 2017).

    python examples/capsules.py [EPOCHS]

A capsule is a vector whose length says how sure it is that its thing is there.  Routing is a short
loop in plain Python: agreement between a capsule's prediction and the sum raises its share.  The
network is a smaller one than the paper's, without the reconstruction.
"""

import sys
import time

import facula as torch
import facula.nn as nn
import facula.nn.functional as F
import facula.optim as optim
from facula.utils.data import DataLoader
from facula.vision import datasets, transforms


def squash(s):
    """Vectors [..., D] made shorter than 1 without turning them."""
    squared = (s * s).sum(-1, keepdim=True)
    return s * (squared / (1 + squared) / torch.sqrt(squared + 1e-9))


class CapsNet(nn.Module):
    """Images [N, 1, 28, 28] to one capsule for each class, [N, 10, 16]."""

    def __init__(self, channels=8, size=8, classes=10, out=16, rounds=3):
        super().__init__()
        self.size, self.rounds = size, rounds
        self.conv = nn.Conv2d(1, 64, 9, stride=2)                           # 10 x 10
        self.primary = nn.Conv2d(64, channels * size, 5, stride=2)          # 3 x 3
        capsules = channels * 3 * 3
        self.weight = nn.Parameter(0.1 * torch.randn(capsules, classes, out, size))

    def forward(self, x):
        x = self.primary(F.relu(self.conv(x)))
        u = squash(x.unflatten(1, (-1, self.size)).movedim(2, -1).flatten(1, 3))    # [N, I, size]
        predicted = torch.einsum("ijdk,nik->nijd", self.weight, u)                 # [N, I, J, out]
        share = torch.zeros(predicted.shape[:3])
        still = predicted.detach()              # routing is not differentiated through
        for _ in range(self.rounds - 1):
            v = squash((F.softmax(share, 2)[..., None] * still).sum(1))
            share = share + (still * v[:, None]).sum(-1)
        return squash((F.softmax(share, 2)[..., None] * predicted).sum(1))


def margin_loss(lengths, labels):
    """Lengths [N, 10]: long for the class that is there, short for the others."""
    there = F.one_hot(labels, lengths.shape[1]).to(lengths.dtype)
    loss = there * F.relu(0.9 - lengths) ** 2 + 0.5 * (1 - there) * F.relu(lengths - 0.1) ** 2
    return loss.sum(1).mean()


def main(epochs=3, limit=None):
    torch.manual_seed(0)
    transform = transforms.ToTensor()
    train_set = datasets.MNIST("./data", train=True, download=True, transform=transform)
    test_set = datasets.MNIST("./data", train=False, download=True, transform=transform)
    if limit:
        train_set = torch.utils.data.Subset(train_set, range(limit))
        test_set = torch.utils.data.Subset(test_set, range(limit))
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=500)

    model = CapsNet()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(1, epochs + 1):
        start, total = time.perf_counter(), 0.0
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = margin_loss(model(images).norm(dim=-1), labels)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        with torch.no_grad():
            right = sum((model(x).norm(dim=-1).argmax(1) == y).sum().item()
                        for x, y in test_loader)
        print(f"epoch {epoch}: loss {float(total) / len(train_loader):.4f}, test accuracy "
              f"{right / len(test_set):.2%}, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
