"""What every job that makes a version says of it."""

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
