"""Strategies that split interactions into training, validation and test: pure functions of index arrays."""

from mmattn.evaluation.splits.strategies.cold import cold_item_split, cold_user_split, mixed_split
from mmattn.evaluation.splits.strategies.from_column import split_from_column
from mmattn.evaluation.splits.strategies.global_time import global_time_split
from mmattn.evaluation.splits.strategies.leave_one_out import leave_one_out_split
from mmattn.evaluation.splits.strategies.random import random_split

__all__ = [
    "cold_item_split",
    "cold_user_split",
    "global_time_split",
    "leave_one_out_split",
    "mixed_split",
    "random_split",
    "split_from_column",
]
