"""What every job that makes a version says of it."""

from app.model.contents import Evaluation
from app.pipeline import TrainedVersion


def tell(version: TrainedVersion) -> None:
    """Print where the version is, what the gate said of it, and what became of it."""
    print(f"version {version.number}: {version.bundle}")
    print(f"{'passed' if version.verdict.passed else 'refused by'} the gate:")
    for reason in version.verdict.reasons:
        print(f"  {reason}")
    name = f"{version.contents.spec.name}/{version.number}"
    if version.promoted:
        print(f"{name} is champion now")
    elif version.verdict.passed:
        print(f"{name} stays challenger, for rollout.promote is manual")
    else:
        print(f"{name} stays challenger; jobs.deploy and jobs.predict take it by --version {version.number}")


def figures(evaluation: Evaluation) -> str:
    """Write the figures of an evaluation in one line: the mean of the months where there are whole ones."""
    months = evaluation.mean_of_months()
    told = ", ".join(
        f"{name} {value:.4f}" for name, value in (months or evaluation.overall).items() if name != "rows"
    )
    return f"{told}{' (mean of the months)' if months else ''}"
