"""Modules that a user names, and why Python may find another one than the user's file."""

import sys
from pathlib import Path


def hidden_file(module: str) -> str:
    """Return a clause for a message if a file of the current folder is hidden by another module of its name, else "".

    The current folder is the last place that is searched, so that none of its files replaces a library. A `test.py`
    there is therefore never imported: the standard library has a module of that name.

    Args:
        module: the name that the user gave; it may have been imported or not.
    """
    top = module.partition(".")[0]
    here = next((path for path in (Path(f"{top}.py"), Path(top) / "__init__.py") if path.is_file()), None)
    found = getattr(sys.modules.get(top), "__file__", None)
    if here is None or (found is not None and Path(found).resolve() == here.resolve()):
        return ""
    if found is None and top not in sys.stdlib_module_names:
        return ""
    owner = "Python's standard library" if top in sys.stdlib_module_names else f"the module {found}"
    return f"; {here} in this folder is hidden by '{top}' of {owner}: rename the file"
