"""MNIST read a row at a time by an LSTM: 28 steps of 28 pixels.

    python examples/lstm.py [EPOCHS]
"""

import sys
import time

import facula as torch
import facula.nn as nn
import facula.nn.functional as F
import facula.optim as optim
from facula.utils.data import DataLoader
from facula.vision import datasets, transforms


class Reader(nn.Module):
    """Images [N, 1, 28, 28] to logits [N, 10]."""

    def __init__(self, hidden=128):
        super().__init__()
        self.lstm = nn.LSTM(28, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 10)

    def forward(self, x):
        _, (h, _) = self.lstm(x.squeeze(1))
        return self.out(h[-1])


def main(epochs=3, limit=None):
    torch.manual_seed(0)
    transform = transforms.Compose([transforms.ToTensor(),
                                    transforms.Normalize((0.1307,), (0.3081,))])
    train_set = datasets.MNIST("./data", train=True, download=True, transform=transform)
    test_set = datasets.MNIST("./data", train=False, download=True, transform=transform)
    if limit:
        train_set = torch.utils.data.Subset(train_set, range(limit))
        test_set = torch.utils.data.Subset(test_set, range(limit))
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=500)

    model = Reader()
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(1, epochs + 1):
        start, total = time.perf_counter(), 0.0
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.detach()
        with torch.no_grad():
            right = sum((model(x).argmax(1) == y).sum().item() for x, y in test_loader)
        print(f"epoch {epoch}: loss {float(total) / len(train_loader):.4f}, test accuracy "
              f"{right / len(test_set):.2%}, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
