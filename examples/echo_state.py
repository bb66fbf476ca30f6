"""An echo-state network that continues the Mackey-Glass series (Jaeger, 2001).

    python examples/echo_state.py [UNITS]

The reservoir is random and stays as it is; only the readout is learned, in one ridge regression.
Then the network is fed its own predictions.
"""

import sys

import facula as torch


def mackey_glass(count, tau=17, discard=200):
    """`count` values of x' = 0.2 x(t-tau) / (1 + x(t-tau)**10) - 0.1 x, by Euler's method."""
    history = [1.2] * (tau + 1)
    for _ in range(count + discard - 1):
        old = history[-tau - 1]
        history.append(history[-1] + 0.2 * old / (1 + old ** 10) - 0.1 * history[-1])
    return torch.tensor(history[-count:], dtype=torch.float64)


class Reservoir:
    """`units` tanh units with sparse random connections, of the given spectral radius."""

    def __init__(self, units, radius=1.25, leak=0.3, density=0.1):
        weights = torch.rand(units, units, dtype=torch.float64) - 0.5
        weights = weights * (torch.rand(units, units) < density)
        self.weights = weights * (radius / torch.linalg.eigvals(weights).abs().max())
        self.inputs = torch.rand(units, 2, dtype=torch.float64) - 0.5       # bias and input
        self.leak = leak
        self.state = torch.zeros(units, dtype=torch.float64)

    def step(self, u):
        """Take in one value; the features of the readout, [units + 2]."""
        x = torch.stack([torch.ones_like(u), u])
        new = torch.tanh(self.inputs @ x + self.weights @ self.state)
        self.state = (1 - self.leak) * self.state + self.leak * new
        return torch.cat([x, self.state])


def main(units=400, train=2000, warm=100, ahead=500):
    torch.manual_seed(0)
    series = mackey_glass(train + ahead + 1)
    reservoir = Reservoir(units)
    features = torch.stack([reservoir.step(u) for u in series[:train]])[warm:]     # [T, units + 2]
    targets = series[warm + 1:train + 1]
    gram = features.T @ features + 1e-8 * torch.eye(features.shape[1], dtype=torch.float64)
    readout = torch.linalg.solve(gram, features.T @ targets)
    fit = ((features @ readout - targets) ** 2).mean().sqrt().item()

    u, predicted = series[train], []
    for _ in range(ahead):
        u = reservoir.step(u) @ readout
        predicted.append(u)
    error = (torch.stack(predicted) - series[train + 1:train + ahead + 1]) ** 2
    scale = series.std()
    print(f"one step ahead, seen: {fit:.1e}")
    for steps in (50, 100, ahead):
        share = (error[:steps].mean().sqrt() / scale).item()
        print(f"free running, first {steps} steps: {share:.1e} of the series' deviation")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
