"""Baseline recommenders, well tuned so that comparisons with them are meaningful.

Some are linear in the user's history: score = history [U, W] @ weights [W, I], where W are the known items.
The weights come from co-occurrence (EASE, item neighbours) or from item content (ridge, nearest neighbours,
kernel ridge), which also scores cold items. The others represent users and items as vectors, fitted by least
squares (ImplicitALS) or learned from pairs (BPR, LightGCN, and VBPR, which also scores cold items).
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
