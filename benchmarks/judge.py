"""How good generated digits are, by the features of a classifier that is trained on MNIST."""

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import nn
from torch.nn import functional

N_FEATURES, N_NEAREST = 64, 3


def shifted(x, random):
    """Images moved by up to a pixel in both directions."""
    image = functional.pad(x.view(-1, 28, 28), (1, 1, 1, 1))
    row, column = torch.randint(0, 3, (2,), generator=random).tolist()
    return image[:, row : row + 28, column : column + 28].reshape(len(x), 784)


class Judge:
    """A classifier 784-512-64-10, of whose last hidden layer the distances are."""

    def __init__(self, images, labels, *, n_epochs=15, seed=0):
        torch.manual_seed(seed)
        self.body = nn.Sequential(
            nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(512, N_FEATURES), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(N_FEATURES, 10)
        parameters = [*self.body.parameters(), *self.head.parameters()]
        X, y = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
        n_steps = n_epochs * (len(X) // 256)
        adam = torch.optim.Adam(parameters)
        schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, n_steps)
        random = torch.Generator().manual_seed(seed)
        for _ in range(n_epochs):
            order = torch.randperm(len(X), generator=random)
            for chosen in order[: len(X) // 256 * 256].split(256):
                loss = functional.cross_entropy(
                    self.head(self.body(shifted(X[chosen], random))), y[chosen]
                )
                adam.zero_grad()
                loss.backward()
                adam.step()
                schedule.step()
        self.body.eval()

    @torch.no_grad()
    def features(self, images):
        return self.body(torch.from_numpy(np.asarray(images, np.float32)))

    @torch.no_grad()
    def classes(self, images):
        return self.head(self.features(images)).argmax(1).numpy()


def frechet(a, b):
    """The distance of two Gaussians with the means and covariances of a and b."""
    a, b = (np.asarray(x, float) for x in (a, b))
    values, vectors = np.linalg.eigh(np.cov(a.T))
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ np.cov(b.T) @ root).clip(0)).sum()
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(gap + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * shared)


def covered(points, support):
    """The share of points in a ball around one of ``support``, up to its third nearest."""
    radii = np.sort(cdist(support, support), axis=1)[:, N_NEAREST]
    return float((cdist(points, support) <= radii).any(1).mean())


def judged(judge, real, fake, n=2000):
    """Frechet distance, precision, recall, digits covered, and how unevenly."""
    a, b = judge.features(real).numpy(), judge.features(fake).numpy()
    shares = np.bincount(judge.classes(fake), minlength=10) / len(fake)
    truth = np.bincount(judge.classes(real), minlength=10) / len(real)
    return {
        "Frechet": frechet(a, b),
        "precision": covered(b[:n], a[:n]),
        "recall": covered(a[:n], b[:n]),
        "digits": int((shares > 0.01).sum()),
        "unevenness": float(0.5 * np.abs(shares - truth).sum()),
    }
