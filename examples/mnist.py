"""784-128-64-10 with ReLU and cross-entropy on MNIST, by plain SGD.

    python examples/mnist.py [EPOCHS]

Everything here is PyTorch's interface: with `import torch`, torchvision and a download it is a
PyTorch program.
"""

import sys
import time

import facula as torch
import facula.nn as nn
import facula.optim as optim
from facula.utils.data import DataLoader
from facula.vision import datasets, transforms


def accuracy(model, loader):
    """The share of images that the model puts into the right class."""
    right = 0
    with torch.no_grad():
        for images, labels in loader:
            right += (model(images).argmax(dim=1) == labels).sum().item()
    return right / len(loader.dataset)


def main(epochs=10):
    torch.manual_seed(0)
    transform = transforms.Compose([
        transforms.ToTensor(),
        transforms.Normalize((0.1307,), (0.3081,)),
    ])
    train_set = datasets.MNIST(root="./data", train=True, download=True, transform=transform)
    test_set = datasets.MNIST(root="./data", train=False, download=True, transform=transform)
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=1000)

    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 128), nn.ReLU(),
        nn.Linear(128, 64), nn.ReLU(),
        nn.Linear(64, 10),
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        total = 0.0
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.detach()       # a tensor: its value is not waited for here
        seconds = time.perf_counter() - start
        print(f"epoch {epoch}: loss {float(total) / len(train_loader):.4f}, test accuracy "
              f"{accuracy(model, test_loader):.2%}, {seconds:.1f} s")

    torch.save(model.state_dict(), "mnist.safetensors")
    print("weights are in mnist.safetensors")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
