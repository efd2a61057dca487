"""Make, list or revoke the keys that requests to the endpoint carry; replicas follow within a second."""

import argparse
import sys

from app.declaration import Declaration
from app.keys import ENVIRONMENT, FILE, LEAST_RATE, SCOPES, Scope, add_key, read_keys, revoke_key
from app.workspace import Workspace
from jobs.command import main, parse_duration


def keys(declaration: Declaration, workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Do what was asked. A new key is shown once, alone on standard output, and kept nowhere."""
    spec = declaration.spec
    uri = workspace.uri(spec.name, FILE)
    if arguments.add is not None:
        kept, secret = add_key(uri, arguments.add, arguments.scopes, arguments.expires, arguments.rate)
        until = f" until {kept.expires:%Y-%m-%d %H:%M} UTC" if kept.expires is not None else ""
        print(
            f"{kept.name}: good for {', '.join(kept.scopes)}{until}. This is the only time the key is shown; our own "
            f"clients read it from ${ENVIRONMENT}.",
            file=sys.stderr,
        )
        print(secret, file=sys.__stdout__)  # sys.stdout may be what lines of a log are made of
    elif arguments.revoke is not None:
        revoke_key(uri, arguments.revoke)
        print(f"{arguments.revoke} is good for nothing any more")
    else:
        for key in read_keys(uri):
            until = f"{key.expires:%Y-%m-%d %H:%M}" if key.expires is not None else "-"
            rate = f"  {key.rate:g} rows a second" if key.rate is not None else ""
            made = f"{key.created:%Y-%m-%d %H:%M}"
            print(f"{key.name:<24} {','.join(key.scopes):<20} made {made}  expires {until}{rate}")
    if not spec.serve.needs_keys:
        print(f"note: {spec.name} asks for no key; see serve.keys", file=sys.stderr)


def _scopes(text: str) -> tuple[Scope, ...]:
    """Read an argument such as predict,labels; argparse tells the mistake."""
    wanted = [name.strip() for name in text.split(",")]
    if unknown := [name for name in wanted if name not in SCOPES]:
        raise argparse.ArgumentTypeError(f"found {', '.join(unknown)!r}, allowed are {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in wanted)


def _rate(text: str) -> float:
    """Read an argument such as 500; argparse tells the mistake."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not LEAST_RATE <= rate < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed a number of at least {LEAST_RATE}")
    return rate


def _extend(parser: argparse.ArgumentParser) -> None:
    wish = parser.add_mutually_exclusive_group(required=True)
    wish.add_argument("--add", metavar="NAME", help="make a key of this name")
    wish.add_argument("--list", action="store_true", help="show names, scopes and times; no keys, they are not kept")
    wish.add_argument("--revoke", metavar="NAME", help="make a key good for nothing")
    parser.add_argument(
        "--scopes",
        type=_scopes,
        default=("predict",),
        help="what a new key is good for, of predict, labels (they teach the model) and read (the console, drift, "
        "decisions, model, docs); default: predict",
    )
    parser.add_argument(
        "--expires", type=parse_duration, help="how long a new key is good, such as 90d (default: always)"
    )
    parser.add_argument(
        "--rate", type=_rate, help="rows a second that each replica takes with a new key (default: any number)"
    )


if __name__ == "__main__":
    main(keys, __doc__ or "", _extend)
