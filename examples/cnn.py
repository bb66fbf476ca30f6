"""A small convolutional network on MNIST: 99 % in a few epochs.

    python examples/cnn.py [EPOCHS]
"""

import sys
import time

import facula as torch
import facula.nn as nn
import facula.nn.functional as F
import facula.optim as optim
from facula.utils.data import DataLoader
from facula.vision import datasets, transforms


class Net(nn.Module):
    """Two convolutions, one pooling, two linear layers, as in PyTorch's own MNIST example."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.fc1 = nn.Linear(64 * 12 * 12, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):                                   # [N, 1, 28, 28]
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)          # [N, 64, 12, 12]
        x = F.dropout(torch.flatten(x, 1), 0.25, training=self.training)
        x = F.dropout(F.relu(self.fc1(x)), 0.5, training=self.training)
        return self.fc2(x)


def main(epochs=5, limit=None):
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

    model = Net()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, epochs=epochs,
                                              steps_per_epoch=len(train_loader))
    for epoch in range(1, epochs + 1):
        model.train()
        start, total = time.perf_counter(), 0.0
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.detach()
        model.eval()
        with torch.no_grad():
            right = sum((model(x).argmax(1) == y).sum().item() for x, y in test_loader)
        print(f"epoch {epoch}: loss {float(total) / len(train_loader):.4f}, test accuracy "
              f"{right / len(test_set):.2%}, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
