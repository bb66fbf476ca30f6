"""Programs on images, written for PyTorch: each takes the module that it knows as `torch`.

A program is a function `(torch, rng) -> (model, step)`; `step()` trains once and returns a number.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def normal(rng: Any, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def resnet(torch: Any, rng: Any) -> Any:
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int = 1):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Sequential()
            if stride != 1 or inputs != outputs:
                self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                              nn.BatchNorm2d(outputs))

        def forward(self, x: Any) -> Any:
            out = F.relu(self.bn1(self.conv1(x)), inplace=True)
            out = self.bn2(self.conv2(out))
            out += self.shortcut(x)
            return F.relu(out)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
            self.bn = nn.BatchNorm2d(8)
            self.layers = nn.Sequential(Block(8, 8), Block(8, 16, 2))
            self.pool = nn.AdaptiveAvgPool2d((1, 1))
            self.fc = nn.Linear(16, 10)

        def forward(self, x: Any) -> Any:
            x = self.layers(F.relu(self.bn(self.stem(x))))
            return self.fc(torch.flatten(self.pool(x), 1))

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4,
                                nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    x, y = normal(rng, 8, 3, 16, 16), rng.integers(0, 10, 8)

    def step() -> float:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        return loss.item()

    return model, step


def dcgan(torch: Any, rng: Any) -> Any:
    nn = torch.nn
    model = nn.ModuleDict({
        "G": nn.Sequential(
            nn.ConvTranspose2d(8, 16, 4, 1, 0, bias=False), nn.BatchNorm2d(16), nn.ReLU(True),
            nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
            nn.ConvTranspose2d(8, 1, 4, 2, 1, bias=False), nn.Tanh()),
        "D": nn.Sequential(
            nn.Conv2d(1, 8, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(8, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16),
            nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(16, 1, 4, 1, 0, bias=False),
            nn.Sigmoid())})
    netG, netD, criterion = model["G"], model["D"], nn.BCELoss()
    optD = torch.optim.Adam(netD.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optG = torch.optim.Adam(netG.parameters(), lr=2e-4, betas=(0.5, 0.999))
    real, noise = normal(rng, 8, 1, 16, 16), normal(rng, 8, 8, 1, 1)

    def step() -> float:
        netD.zero_grad()
        output = netD(torch.tensor(real)).view(-1)
        label = torch.full((8,), 1.0, dtype=torch.float32)
        real_loss = criterion(output, label)
        real_loss.backward()
        fake = netG(torch.tensor(noise))
        label.fill_(0.0)
        fake_loss = criterion(netD(fake.detach()).view(-1), label)
        fake_loss.backward()
        optD.step()
        netG.zero_grad()
        label.fill_(1.0)
        loss = criterion(netD(fake).view(-1), label)
        loss.backward()
        optG.step()
        return (real_loss + fake_loss).item() + loss.item()

    return model, step


def capsules(torch: Any, rng: Any) -> Any:
    nn, F = torch.nn, torch.nn.functional

    def squash(x: Any, dim: int = -1) -> Any:
        squared = (x ** 2).sum(dim=dim, keepdim=True)
        return squared / (1 + squared) * x / (squared.sqrt() + 1e-8)

    class Caps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 16, 5)
            self.primary = nn.ModuleList([nn.Conv2d(16, 4, 5, 2) for _ in range(4)])
            self.W = nn.Parameter(torch.randn(1, 10, 36, 8, 4) * 0.1)

        def forward(self, x: Any) -> Any:
            x = F.relu(self.conv(x))
            u = torch.stack([p(x) for p in self.primary], dim=1)
            u = squash(u.view(x.size(0), 4, -1).transpose(1, 2))
            hat = torch.matmul(self.W, u[:, None, :, :, None]).squeeze(-1)
            b = torch.zeros(*hat.shape[:3]).to(x.device)
            still = hat.detach()
            for _ in range(2):
                v = squash((F.softmax(b, dim=1).unsqueeze(-1) * still).sum(dim=2))
                b = b + torch.einsum("bjnd,bjd->bjn", still, v)
            return squash((F.softmax(b, dim=1).unsqueeze(-1) * hat).sum(dim=2)).norm(dim=-1)

    model = Caps()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = normal(rng, 4, 1, 14, 14), rng.integers(0, 10, 4)

    def step() -> float:
        v = model(torch.tensor(x))
        t = F.one_hot(torch.tensor(y), 10).float()
        loss = (t * F.relu(0.9 - v) ** 2 + 0.5 * (1 - t) * F.relu(v - 0.1) ** 2).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return model, step


def unet(torch: Any, rng: Any) -> Any:
    nn, F = torch.nn, torch.nn.functional

    class Double(nn.Sequential):
        def __init__(self, i: int, o: int):
            super().__init__(nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(2, o), nn.SiLU(),
                             nn.Conv2d(o, o, 3, padding=1), nn.InstanceNorm2d(o, affine=True),
                             nn.PReLU())

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down1, self.down2, self.up1 = Double(1, 4), Double(4, 8), Double(8, 4)
            self.up = nn.ConvTranspose2d(8, 4, 2, 2)
            self.out = nn.Conv2d(4, 1, 1)
            self.wide = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

        def forward(self, x: Any) -> Any:
            a = self.down1(x)
            b = self.down2(F.max_pool2d(a, 2))
            u = self.up(b)
            u = F.pad(u, [0, a.size(3) - u.size(3), 0, a.size(2) - u.size(2)])
            out = self.out(self.up1(torch.cat([a, u], 1)))
            return out + self.wide(b)[:, :1].mean()

    model = UNet()
    optimizer = torch.optim.Adadelta(model.parameters())
    x = normal(rng, 2, 1, 12, 12)
    y = (rng.random((2, 1, 12, 12)) > 0.5).astype(np.float32)

    def step() -> float:
        logits, target = model(torch.tensor(x)), torch.tensor(y)
        p = torch.sigmoid(logits)
        dice = 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
        loss = dice + F.binary_cross_entropy_with_logits(logits, target,
                                                         pos_weight=torch.tensor(2.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return model, step


def autoencoder(torch: Any, rng: Any) -> Any:
    nn, F = torch.nn, torch.nn.functional

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.mu, self.logvar = nn.Linear(20, 16), nn.Linear(16, 4), \
                nn.Linear(16, 4)
            self.decoder = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 20),
                                         nn.Sigmoid())

        def forward(self, x: Any, eps: Any) -> Any:
            h = torch.relu(self.encoder(x.view(-1, 20)))
            mu, logvar = self.mu(h), self.logvar(h)
            z = eps.mul(torch.exp(0.5 * logvar)).add_(mu)
            return self.decoder(z), mu, logvar

    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, eps = rng.random((6, 20)).astype(np.float32), normal(rng, 6, 4)

    def step() -> float:
        again, mu, logvar = model(torch.tensor(x), torch.tensor(eps))
        bce = F.binary_cross_entropy(again, torch.tensor(x), reduction="sum")
        loss = bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return model, step
