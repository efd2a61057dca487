"""Where everything lives: one root, a local folder or a bucket, and the functions that every file goes through."""

from app.workspace.files import (
    create_bytes,
    delete,
    delete_folder,
    exists,
    list_files,
    list_folders,
    mark,
    move,
    read_bytes,
    resolve,
    write_bytes,
    write_stream,
)
from app.workspace.root import ENVIRONMENT, Workspace, join, name_of
from app.workspace.store import PATIENT, PROMPT, Listed

__all__ = [
    "ENVIRONMENT",
    "PATIENT",
    "PROMPT",
    "Listed",
    "Workspace",
    "create_bytes",
    "delete",
    "delete_folder",
    "exists",
    "join",
    "list_files",
    "list_folders",
    "mark",
    "move",
    "name_of",
    "read_bytes",
    "resolve",
    "write_bytes",
    "write_stream",
]
