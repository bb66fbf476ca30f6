"""A residual network on MNIST (He et al., 2016): batch norm, strides, shortcuts, a cosine schedule.

    python examples/resnet.py [EPOCHS]
"""

import sys
import time

import facula as torch
import facula.nn as nn
import facula.nn.functional as F
import facula.optim as optim
from facula.utils.data import DataLoader
from facula.vision import datasets, transforms


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                          nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet(width=16, blocks=2):
    """28 x 28 images to 10 logits, in three stages of `blocks` blocks."""
    layers, channels = [nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
                        nn.ReLU()], width
    for stage in range(3):
        for k in range(blocks):
            outputs = width << stage
            layers.append(Block(channels, outputs, 2 if stage and not k else 1))
            channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def main(epochs=3, limit=None):
    torch.manual_seed(0)
    normal = transforms.Normalize((0.1307,), (0.3081,))
    train_set = datasets.MNIST("./data", train=True, download=True, transform=transforms.Compose(
        [transforms.RandomCrop(28, padding=2), transforms.ToTensor(), normal]))
    test_set = datasets.MNIST("./data", train=False, download=True,
                              transform=transforms.Compose([transforms.ToTensor(), normal]))
    if limit:
        train_set = torch.utils.data.Subset(train_set, range(limit))
        test_set = torch.utils.data.Subset(test_set, range(limit))
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=500)

    model = resnet()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True,
                          weight_decay=5e-4)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(train_loader))
    for epoch in range(1, epochs + 1):
        model.train()
        start, total = time.perf_counter(), 0.0
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        model.eval()
        with torch.no_grad():
            right = sum((model(x).argmax(1) == y).sum().item() for x, y in test_loader)
        print(f"epoch {epoch}: loss {float(total) / len(train_loader):.4f}, test accuracy "
              f"{right / len(test_set):.2%}, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
