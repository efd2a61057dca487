"""How does a small network learn what large models know? From their answers, where rows have labels and where not.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015. A teacher's answer tells more than a
label: a flight that was late by chance is answered like its like that were in time. And a teacher answers every row,
so rows that have no label teach as well.

Distillation is a training on other targets, so it needs no loss of its own. Where a row has a label,

    target = weight x answer + (1 - weight) x label,

elsewhere the answer alone. Of classes these are probabilities, and cross-entropy is linear in them: the loss is the
mixture of both losses. Of a regression they are values: given a row's features the mixture rises with the label, so
its mean, median or quantile is the mixture of the teacher's and the label's own, whichever the declared loss asks for.

A quantile needs labels beside the answers. The pinball loss of .9 wants nine of ten targets below the prediction; with
answers for targets, a student too small to tell them apart lies above nine of ten answers, not labels.
"""

from collections.abc import Callable

import numpy as np

from app.data.encode import Examples
from app.data.features import FeaturePlan, TargetColumn
from app.spec import Spec
from app.training.loader import Parts
from app.training.loop import OnEpoch
from app.training.trainer import Trained, train
from app.types import Features, Scores, Targets
from app.workspace import Workspace

_DROPOUT = 0.1  # a student of its teacher's answers needs less than one of noisy labels, but not none

Answer = Callable[[Features], Scores]
"""A teacher: the scores of features, such as `app.model.runtime.Runtime.score`."""


def student_spec(spec: Spec) -> Spec:
    """Return the declaration with `compress.student` as its model: what the student is trained, and served, as.

    No patience is lost on a noisy validation: the rate falls to nothing, and the best epoch is kept. Classes do not weigh
    differently: whatever weights the teachers learned with, they answer with probabilities.
    """
    student = spec.compress.student
    return spec.with_settings(
        {
            "model.kind": "network",
            "model.width": student.width,
            "model.depth": student.depth,
            "model.dropout": _DROPOUT,
            "model.number_embedding": student.number_embedding,
            "model.frequencies": student.frequencies,
            "model.category_embedding": student.category_embedding,
            "train.epochs": student.epochs,
            "train.learning_rate": student.learning_rate,
            "train.patience": student.epochs,
            "train.class_weights": "none",
        }
    )


def teaching(spec: Spec, target: TargetColumn) -> float:
    """Return the weight of the teacher's answers beside the labels."""
    declared = spec.compress.student.teaching
    if declared != "auto":
        return declared
    return 0.5 if target.loss == "quantile" else 1.0


def distil(
    parts: Parts,
    plan: FeaturePlan,
    spec: Spec,
    answer: Answer,
    unlabelled: Features | None,
    workspace: Workspace,
    run: str,
    on_epoch: OnEpoch | None = None,
    threads: int = 0,
) -> Trained:
    """Train the student of `student_spec(spec)` on a teacher's answers; `unlabelled` rows are learned beside the others.

    The validation rows keep their labels: they stop and calibrate the student as any other network, and say
    honestly how good it is. Raises UserError as `app.training.trainer.train`.
    """
    taught = with_answers(parts, plan.target, answer, teaching(spec, plan.target), unlabelled)
    return train(taught, plan, student_spec(spec), workspace, run, on_epoch, threads=threads)


def with_answers(
    parts: Parts, target: TargetColumn, answer: Answer, weight: float, unlabelled: Features | None = None
) -> Parts:
    """Return the parts with soft targets for training: (n,), or probabilities (n, K) of several classes.

    `weight` is that of the teacher's answers where there is a label. `unlabelled` rows come after the others. A row of `parts` that has no label is answered as well.
    """
    train = parts.train
    soft = mixture(target, train.target, answer(train.features), weight)
    features = train.features
    if unlabelled is not None and len(unlabelled.number):
        number = np.concatenate([features.number, unlabelled.number])
        features = Features(number, np.concatenate([features.category, unlabelled.category]))
        soft = np.concatenate([soft, np.asarray(answer(unlabelled), np.float32)])
    # Neither moment nor place in the table is asked for where a network learns.
    nothing = np.empty(0, np.int64)
    return parts._replace(train=Examples(features, soft, nothing, nothing))


def mixture(target: TargetColumn, labels: Targets, answers: Scores, weight: float) -> Targets:
    """Return `weight` x answers + (1 - `weight`) x labels; the answers alone where there is no label (NaN).

    `labels` (n,) as `app.types.Targets`; of several classes the answers and what is returned are (n, K).
    """
    known = ~np.isnan(labels)
    soft = np.array(answers, np.float32)
    hard = labels[known]
    if target.task == "multiclass":
        hard = np.eye(target.outputs, dtype=np.float32)[hard.astype(np.int64)]
    soft[known] = weight * soft[known] + (1 - weight) * hard
    return soft
