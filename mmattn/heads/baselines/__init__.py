"""Rival recommenders, strong on purpose: a rival left weak proves nothing.

Some are linear in the user's history: score = history [U, W] @ weights [W, I], where W are the items
whose interactions are known. They differ in where the weights come from: other users' choices (EASE,
item neighbours), or the items' content (ridge, nearest neighbours, kernel ridge), which reaches cold
items. The others give users and items vectors: least squares (ImplicitALS), or learned from pairs (BPR,
LightGCN, and VBPR, which reaches cold items).
"""

from mmattn.heads.baselines.als import ImplicitALS
from mmattn.heads.baselines.base import Recommender
from mmattn.heads.baselines.bpr import BPR
from mmattn.heads.baselines.factors import Factors
from mmattn.heads.baselines.lightgcn import LightGCN
from mmattn.heads.baselines.linear import EASE, ContentRidge, KernelRidge
from mmattn.heads.baselines.neighbours import ContentKNN, ItemKNN
from mmattn.heads.baselines.popularity import Popularity
from mmattn.heads.baselines.vbpr import VBPR

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
