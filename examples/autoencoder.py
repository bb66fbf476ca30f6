"""A variational autoencoder on MNIST (Kingma and Welling, 2014).

    python examples/autoencoder.py [EPOCHS]

Writes digits drawn from the prior to vae.png.
"""

import sys
import time

import facula as torch
import facula.nn as nn
import facula.nn.functional as F
import facula.optim as optim
from facula.utils.data import DataLoader
from facula.vision import datasets, transforms


class VAE(nn.Module):
    """784 pixels to a Gaussian over `code` numbers, and back."""

    def __init__(self, hidden=400, code=20):
        super().__init__()
        self.code = code
        self.encoder = nn.Linear(784, hidden)
        self.mean = nn.Linear(hidden, code)
        self.log_variance = nn.Linear(hidden, code)
        self.decoder = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, 784))

    def forward(self, x):
        h = F.relu(self.encoder(x))
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return self.decoder(z), mean, log_variance


def loss_of(logits, x, mean, log_variance):
    """The negative evidence lower bound, summed over the batch, in nats."""
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    divergence = -0.5 * (1 + log_variance - mean ** 2 - log_variance.exp()).sum()
    return reconstruction + divergence


def main(epochs=5, limit=None):
    from PIL import Image
    torch.manual_seed(0)
    data = datasets.MNIST("./data", train=True, download=True, transform=transforms.ToTensor())
    if limit:
        data = torch.utils.data.Subset(data, range(limit))
    loader = DataLoader(data, batch_size=128, shuffle=True)

    model = VAE()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(1, epochs + 1):
        start, total = time.perf_counter(), 0.0
        for images, _ in loader:
            x = images.flatten(1)
            optimizer.zero_grad()
            logits, mean, log_variance = model(x)
            loss = loss_of(logits, x, mean, log_variance)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        print(f"epoch {epoch}: {float(total) / len(data):.2f} nats an image, "
              f"{time.perf_counter() - start:.1f} s")
    with torch.no_grad():
        drawn = torch.sigmoid(model.decoder(torch.randn(64, model.code)))
        sheet = drawn.reshape(8, 8, 28, 28).permute(0, 2, 1, 3).reshape(224, 224)
        Image.fromarray((sheet * 255).to(torch.uint8).numpy()).save("vae.png")
    print("64 digits drawn from the prior are in vae.png")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
