"""A model of two linear layers trained with mean squared error and SGD, on data made here.

    python examples/seed_2_4.py

The targets are a fixed linear map of the inputs, so the loss goes to (nearly) nothing.
"""

import facula as torch
import facula.nn as nn
import facula.optim as optim
from facula.utils.data import DataLoader, TensorDataset


class MyModel(nn.Module):
    def __init__(self):
        super(MyModel, self).__init__()
        self.layer1 = nn.Linear(10, 20)
        self.layer2 = nn.Linear(20, 10)

    def forward(self, x):
        x = self.layer1(x)
        x = self.layer2(x)
        return x


def main(epochs=100):
    """Train; the mean loss of the first and of the last epoch."""
    torch.manual_seed(0)
    inputs = torch.randn(256, 10)
    labels = inputs @ (torch.randn(10, 10) / 10 ** 0.5)
    train_loader = DataLoader(TensorDataset(inputs, labels), batch_size=32, shuffle=True)

    model = MyModel()
    criterion = nn.MSELoss()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    history = []
    for epoch in range(epochs):
        total = 0.0
        for i, (inputs, labels) in enumerate(train_loader):
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
        history.append(total / len(train_loader))
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {history[-1]:.6f}")
    return history[0], history[-1]


if __name__ == "__main__":
    main()
