"""The console's files, as a server hands them out: one page that shows whether the model is well, and why.

They are static and load nothing from another host. The page asks its own service for `drift`, `decisions`, `model`
and `readyz`, all relative to `/<name>/`, and follows them by short polling.
"""

from importlib.resources import files as resources

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
"""To be sent with every file: nothing from elsewhere is loaded or run, and no text becomes markup."""

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
_FIRST = "index.html"


def files() -> dict[str, tuple[str, bytes]]:
    """Return path below `/<name>/` -> (content type, content): "" is the page, the others lie below `console/`."""
    found = {}
    for file in resources(__package__).joinpath("static").iterdir():
        path = "" if file.name == _FIRST else f"console/{file.name}"
        found[path] = _TYPES[file.name.rpartition(".")[2]], file.read_bytes()
    return found
