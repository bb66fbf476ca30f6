"""The textbook MNIST program: loaders, transforms, a model class, a training loop.

    python examples/seed_4.py [EPOCHS]

As it is often printed it has two mistakes that no framework can run: the images are not flattened
before `Linear(784, ...)`, and class numbers go to `MSELoss`.  Facula's errors name both lines and
the way out; here they are put right, each where a comment says so.
"""

import sys

import facula as torch
import facula.nn as nn
import facula.optim as optim
from facula.vision import datasets, transforms


class MyModel(nn.Module):
    def __init__(self):
        super(MyModel, self).__init__()
        self.flatten = nn.Flatten()                  # put right: images are 1x28x28
        self.layer1 = nn.Linear(784, 128)
        self.layer2 = nn.Linear(128, 64)
        self.layer3 = nn.Linear(64, 10)

    def forward(self, x):
        x = self.flatten(x)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        return x


def main(epochs=10):
    """Train, and print the loss of each epoch; the last one."""
    torch.manual_seed(0)
    transform = transforms.Compose([
        transforms.ToTensor(),
        transforms.Normalize((0.1307,), (0.3081,)),
    ])
    train_dataset = datasets.MNIST(root="./data", train=True, download=True, transform=transform)
    test_dataset = datasets.MNIST(root="./data", train=False, download=True, transform=transform)
    train_loader = torch.utils.data.DataLoader(train_dataset, batch_size=64, shuffle=True)
    test_loader = torch.utils.data.DataLoader(test_dataset, batch_size=64, shuffle=False)

    model = MyModel()
    criterion = nn.CrossEntropyLoss()                # put right: labels are class numbers
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    mean = float("nan")
    for epoch in range(epochs):
        total = 0.0
        for i, (inputs, labels) in enumerate(train_loader):
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        mean = float(total) / len(train_loader)
        print(f"epoch {epoch + 1}: loss {mean:.4f}")

    correct = 0
    with torch.no_grad():
        for inputs, labels in test_loader:
            correct += (model(inputs).argmax(1) == labels).sum().item()
    print(f"test accuracy {correct / len(test_dataset):.2%}")
    return mean


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
