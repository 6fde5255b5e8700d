"""Rival recommenders, strong on purpose: a rival left weak proves nothing.

Some are linear in the user's history: score = history [U, W] @ weights [W, I], where W are the items
whose interactions are known. They differ in where the weights come from: other users' choices (EASE,
item neighbours), or the items' content (ridge, nearest neighbours, kernel ridge), which reaches cold
items. The others give users and items vectors: least squares (ImplicitALS), or learned from pairs (BPR,
LightGCN, and VBPR, which reaches cold items).
"""

from mmattn.recommenders.als import ImplicitALS
from mmattn.recommenders.base import Recommender
from mmattn.recommenders.bpr import BPR
from mmattn.recommenders.factors import Factors
from mmattn.recommenders.knn import ContentKNN, ItemKNN
from mmattn.recommenders.lightgcn import LightGCN
from mmattn.recommenders.linear import EASE, ContentRidge, KernelRidge
from mmattn.recommenders.popularity import Popularity
from mmattn.recommenders.vbpr import VBPR

__all__ = [
    "BPR",
    "EASE",
    "VBPR",
    "ContentKNN",
    "ContentRidge",
    "Factors",
    "ImplicitALS",
    "ItemKNN",
    "KernelRidge",
    "LightGCN",
    "Popularity",
    "Recommender",
]
