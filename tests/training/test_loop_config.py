"""The configuration and the loop say the same, and every key is explained."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest

from mmattn import InputError, schema
from mmattn.experiments.config import TrainingConfig
from mmattn.training.accelerator import LOGGERS, PRECISIONS
from mmattn.training.loop_config import LoopConfig
from mmattn.training.schedule import SCHEDULES


def test_settings_that_change_the_numbers_are_the_loop_s_own() -> None:
    keys = {key.name for key in fields(LoopConfig)} - {"patience", "save_every", "loggers"}
    assert TrainingConfig().numeric_settings().keys() == keys


def test_the_names_are_the_same_in_both() -> None:
    hints = get_type_hints(LoopConfig)
    assert set(get_args(hints["schedule"])) == set(SCHEDULES)
    assert set(get_args(hints["precision"])) == set(PRECISIONS)
    assert set(get_args(get_args(hints["loggers"])[0])) == set(LOGGERS)


@pytest.mark.parametrize("kind", [LoopConfig, TrainingConfig])
def test_every_key_has_help(kind: type) -> None:
    group = set(inspect.get_annotations(kind))
    explained = set(re.findall(r"^    ?(?:    )?(\w+): \S", inspect.getdoc(kind) or "", re.MULTILINE))
    assert group == explained


def test_unknown_values_are_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"schedule: got 'cosin', expected one of .*Did you mean 'cosine'\?"):
        schema.from_mapping(TrainingConfig, {"schedule": "cosin"}, "fit.yaml")
    with pytest.raises(
        InputError, match=r"no optimizer 'adam_w' in torch.optim or timm. Did you mean 'adamw'\?"
    ):
        schema.from_mapping(TrainingConfig, {"optimizer": "adam_w"}, "fit.yaml")
    with pytest.raises(InputError, match=r"loggers\[0\]: got 'tensorbord'.*Did you mean 'tensorboard'\?"):
        schema.from_mapping(TrainingConfig, {"loggers": ["tensorbord"]}, "fit.yaml")
    with pytest.raises(InputError, match=r"unknown key 'logger'. Did you mean 'loggers'\?"):
        schema.from_mapping(TrainingConfig, {"logger": "wandb"}, "fit.yaml")


def test_a_batch_size_by_epoch_is_read() -> None:
    read = schema.from_mapping(TrainingConfig, {"users_per_batch": {0: 256, 10: 1024}}, "fit.yaml")
    assert read.users_per_batch == {0: 256, 10: 1024}
