"""`facula demo`: train a network on MNIST, save it, load it back, and show where it errs."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from facula.cli import pictures
from facula.cli.progress import Bar

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Enter the subcommand."""
    parser = commands.add_parser("demo", help="train on MNIST, with pictures of the result")
    parser.add_argument("--epochs", type=int,
                        default=int(os.environ.get("FACULA_DEMO_EPOCHS", "10")))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1, help="rate of plain SGD")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0,
                        help="train on this many images only; 0 means all")
    parser.add_argument("--data", default="data",
                        help="where MNIST's files are looked for before the package's own")
    parser.add_argument("--out", default="demo-output", help="folder for what it writes")
    parser.set_defaults(run=run)


def _network() -> Any:
    from facula import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64),
                         nn.ReLU(), nn.Linear(64, 10))


def _classify(model: Any, loader: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Class and probability for each image of the loader, and the mean cross-entropy."""
    import facula
    from facula.nn import functional as F

    classes, certainty, total, count = [], [], 0.0, 0
    model.eval()
    with facula.no_grad():
        for images, labels in loader:
            outputs = model(images)
            total += F.cross_entropy(outputs, labels, reduction="sum").item()
            count += len(labels)
            chance, index = F.softmax(outputs, dim=1).max(dim=1)
            classes.append(index.numpy())
            certainty.append(chance.numpy())
    model.train()
    return np.concatenate(classes), np.concatenate(certainty), total / count


def _epoch(model: Any, loader: Any, optimizer: Any, bar: Bar) -> tuple[list[float], float]:
    """Train once through the loader: the loss of each step, and images a second."""
    from facula import nn

    criterion = nn.CrossEntropyLoss()
    losses: list[Any] = []
    hits, seen, start = 0, 0, time.perf_counter()
    text = ""

    def status() -> str:
        rate = seen / (time.perf_counter() - start)
        recent = sum(float(v) for v in losses[-50:]) / len(losses[-50:])
        return f"loss {recent:.4f}  accuracy {float(hits) / seen:7.2%}  {rate:9,.0f} images/s"

    for step, (images, labels) in enumerate(loader, 1):
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, labels)
        loss.backward()
        # Sums of tensors: nothing is waited for here, and each is read when the bar is drawn.
        losses.append(loss.detach())
        hits = hits + (outputs.argmax(1) == labels).sum()
        seen += len(labels)
        optimizer.step()
        if bar.due:
            text = status()
            bar.draw(step, text)
    values = [float(v) for v in losses]
    rate = seen / (time.perf_counter() - start)
    bar.close(status())
    return values, rate


def run(args: argparse.Namespace) -> int:
    """Train, measure, save, load, classify, draw."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        print("the pictures need Pillow: pip install 'facula[demo]'")
        return 1
    import facula
    from facula import optim
    from facula.utils.data import DataLoader, Subset
    from facula.vision import datasets, transforms

    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    facula.manual_seed(args.seed)
    transform = transforms.Compose([transforms.ToTensor(),
                                    transforms.Normalize((0.1307,), (0.3081,))])
    train: Any = datasets.MNIST(args.data, train=True, transform=transform)
    test = datasets.MNIST(args.data, train=False, transform=transform)
    if args.limit:
        train = Subset(train, range(args.limit))
    train_loader: Any = DataLoader(train, batch_size=args.batch_size, shuffle=True)
    test_loader: Any = DataLoader(test, batch_size=1000)
    targets = np.asarray(test.targets.numpy())

    model = _network()
    optimizer = optim.SGD(model.parameters(), lr=args.lr)
    print(model)
    print(f"{len(train):,} images to train on, {len(test):,} to test; SGD, rate {args.lr}, "
          f"batches of {args.batch_size}, {facula.get_num_threads()} threads", flush=True)

    losses: list[float] = []
    rates, accuracy, test_loss = [], [], []
    begin = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        bar = Bar(len(train_loader), f"epoch {epoch:>{len(str(args.epochs))}}/{args.epochs}")
        values, rate = _epoch(model, train_loader, optimizer, bar)
        losses += values
        rates.append(rate)
        classes, _, mean = _classify(model, test_loader)
        accuracy.append(float((classes == targets).mean()))
        test_loss.append(mean)
    seconds = time.perf_counter() - begin

    weights = out / "mnist.safetensors"
    facula.save(model.state_dict(), str(weights))
    again = _network()
    again.load_state_dict(facula.load(str(weights)))
    classes, certainty, _ = _classify(again, test_loader)
    final = float((classes == targets).mean())
    wrong = np.flatnonzero(classes != targets)

    print()
    for epoch, (hit, mean, rate) in enumerate(zip(accuracy, test_loss, rates), 1):
        print(f"epoch {epoch:>2}: test accuracy {hit:.2%}, test loss {mean:.4f}, "
              f"{rate:,.0f} images/s")
    print(f"training and testing took {seconds:.1f} s; the fastest epoch {max(rates):,.0f} "
          "images/s" if rates else "no training")
    same = bool(accuracy) and final == accuracy[-1]
    print(f"saved {weights} ({weights.stat().st_size:,} bytes), loaded it back: test accuracy "
          f"{final:.2%}" + (", the same" if same else ""))

    if losses:
        steps = np.arange(1, len(losses) + 1) / max(len(train_loader), 1)
        series = np.asarray(losses)
        pictures.curve(
            str(out / "loss.png"), f"MNIST, 784-128-64-10: cross-entropy, {final:.2%} right",
            "epoch",
            [("training, mean of 100 steps", steps, pictures.smooth(series, 100)),
             ("test", np.arange(1, args.epochs + 1), np.asarray(test_loss))],
            faint=(steps, series))
    worst = wrong[np.argsort(-certainty[wrong], kind="stable")][:60]
    pictures.digits(
        str(out / "misclassified.png"),
        f"{len(wrong)} of {len(targets):,} wrong; the most certain first (right > answer)",
        np.asarray(test.data.numpy())[worst],
        [f"{targets[i]} > {classes[i]}  {certainty[i]:.0%}" for i in worst])
    print(f"wrote {out / 'loss.png'} and {out / 'misclassified.png'}" if losses
          else f"wrote {out / 'misclassified.png'}")
    return 0 if accuracy and np.isfinite(test_loss[-1]) and same else 1
