"""A recommender head from another distribution, with a training task of its own."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from mmattn.heads.base import Head
from mmattn.training.tasks.recommendation import item_vectors
from mmattn.training.tasks.recommender import DEFAULT_STEPS, RecommenderTask, TrainedRecommender


class CoOccurrenceHead(Head):
    """Item vectors whose cosine says how often two items are chosen together."""

    def __init__(self, dim):
        super().__init__()
        self.project = torch.nn.Linear(dim, dim)

    @classmethod
    def task(cls):
        return CoOccurrenceTask

    def forward(self, fused):
        return F.normalize(self.project(fused.pooled), dim=1)

    def loss(self, fused, counts):
        vectors = self(fused)
        return (vectors @ vectors.T - counts).square().mean()


class CoOccurrenceTask(RecommenderTask):
    """Cosines of item vectors against cosines of the items' columns of choices."""

    def __init__(self, model, inputs, known, validate_fn, head, steps):
        super().__init__()
        self.model, self.inputs, self.validate_fn = model, inputs, validate_fn
        self.head_name, self.steps, self.context = head, steps, None
        self.set_known(known)

    @classmethod
    def from_interactions(cls, model, inputs, known, validate_fn, *, head, config):
        return cls(model, inputs, known, validate_fn, head, config.steps_per_epoch or DEFAULT_STEPS)

    def set_known(self, known):
        self.items, self.histories = known.items, known.histories
        columns = known.interactions[:, known.items].toarray().T.astype(np.float32)
        columns /= np.maximum(np.linalg.norm(columns, axis=1, keepdims=True), 1)
        self.cosines = torch.from_numpy(columns @ columns.T)

    def batches(self, epoch, generator):
        for _ in range(self.steps):
            yield torch.randperm(len(self.items), generator=generator)[:64]

    def num_batches(self, epoch):
        return self.steps

    def forward(self, batch):
        fused = self.model.fuse(self.model.tokens(self.inputs, torch.from_numpy(self.items)[batch]))
        return self.model.head(self.head_name).loss(fused, self.cosines[batch][:, batch])

    def validate(self):
        return self.validate_fn(self.recommender())

    def recommender(self, inputs=None):
        vectors = item_vectors(self.model, inputs or self.inputs, self.head_name)
        return CoOccurrenceRecommender(vectors.numpy(), self.histories)


class CoOccurrenceRecommender(TrainedRecommender):
    """score(u, j) = sum over the history of the cosine with j."""

    def __init__(self, vectors, histories):
        self.vectors, self.histories = vectors, histories

    def score(self, users, items):
        return (self.histories[np.asarray(users)] @ self.vectors) @ self.vectors[np.asarray(items)].T

    def inner_product_vectors(self, users, items):
        return self.histories[users] @ self.vectors, self.vectors[items]
