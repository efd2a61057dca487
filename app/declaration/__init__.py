"""The one YAML file that says what a user wants: reading it, explaining its mistakes, describing its keys."""

from app.declaration.reading import Declaration, DeclarationError, read

__all__ = ["Declaration", "DeclarationError", "read"]
