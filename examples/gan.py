"""A deep convolutional GAN that learns to draw digits (Radford, Metz and Chintala, 2016).

    python examples/gan.py [EPOCHS]

Writes a sheet of samples, gan.png, after each epoch: always of the same noise, so that one can see
the digits form.  Pillow draws it.
"""

import sys
import time

import facula as torch
import facula.nn as nn
import facula.optim as optim
from facula.utils.data import DataLoader
from facula.vision import datasets, transforms

NOISE = 64


class Generator(nn.Module):
    """Noise [N, NOISE, 1, 1] to images [N, 1, 28, 28] in [-1, 1]."""

    def __init__(self, width=32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(NOISE, 4 * width, 7, bias=False),                    # 7 x 7
            nn.BatchNorm2d(4 * width), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False),          # 14 x 14
            nn.BatchNorm2d(2 * width), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * width, 1, 4, 2, 1),                              # 28 x 28
            nn.Tanh())

    def forward(self, z):
        return self.layers(z)


class Discriminator(nn.Module):
    """Images [N, 1, 28, 28] to one logit each: real or drawn."""

    def __init__(self, width=32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 2 * width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(4 * width), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(4 * width, 1, 7))

    def forward(self, x):
        return self.layers(x).flatten()


def initialise(module):
    """The initial weights that the paper found to work."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def sheet(images, path, columns=8):
    """Save images [N, 1, H, W] in [-1, 1] as one picture."""
    from PIL import Image
    n, _, h, w = images.shape
    grid = images.reshape(n // columns, columns, h, w).permute(0, 2, 1, 3)
    pixels = ((grid.reshape(n // columns * h, columns * w) + 1) * 127.5).to(torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)


def main(epochs=5, limit=None):
    torch.manual_seed(0)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    data = datasets.MNIST("./data", train=True, download=True, transform=transform)
    if limit:
        data = torch.utils.data.Subset(data, range(limit))
    loader = DataLoader(data, batch_size=64, shuffle=True, drop_last=True)

    generator, discriminator = Generator(), Discriminator()
    generator.apply(initialise)
    discriminator.apply(initialise)
    criterion = nn.BCEWithLogitsLoss()
    g_optimizer = optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    d_optimizer = optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    fixed = torch.randn(64, NOISE, 1, 1)

    for epoch in range(1, epochs + 1):
        start, g_total, d_total = time.perf_counter(), 0.0, 0.0
        for real, _ in loader:
            ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
            fake = generator(torch.randn(len(real), NOISE, 1, 1))

            d_optimizer.zero_grad()
            d_loss = (criterion(discriminator(real), ones)
                      + criterion(discriminator(fake.detach()), zeros))
            d_loss.backward()
            d_optimizer.step()

            g_optimizer.zero_grad()
            g_loss = criterion(discriminator(fake), ones)
            g_loss.backward()
            g_optimizer.step()
            d_total += d_loss.detach()
            g_total += g_loss.detach()
        generator.eval()
        with torch.no_grad():
            sheet(generator(fixed), "gan.png")
        generator.train()
        n = len(loader)
        print(f"epoch {epoch}: discriminator {float(d_total) / n:.3f}, generator "
              f"{float(g_total) / n:.3f}, {time.perf_counter() - start:.1f} s, samples in gan.png")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
