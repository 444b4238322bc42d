"""Optional packages of pgx, and modules that a user names."""

import importlib
import sys
import warnings
from pathlib import Path

from pgx.core.errors import UserError
from pgx.core.schema import MAX_VALUE_LENGTH

EXTRAS = {  # package: the extra that installs it, as in pyproject.toml
    "envpool": "envpool",
    "h5py": "dataset",
    "joblib": "sweep",
    "optuna": "sweep",
    "ray": "ray",
    "submitit": "slurm",
    "matplotlib": "plots",
    "av": "video",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "pandas": "pandas",
}


def import_problem(package: str) -> str | None:
    """Import an optional package; return the problem and its fix in words, or None if there is no problem.

    A package that is installed can still fail to import, for example where the C library is older than the one that
    it was built for. Only an attempt shows this.

    Args:
        package: a key of `EXTRAS`.
    """
    install = f"pip install 'pgx-rl[{EXTRAS[package]}]'"
    before = set(sys.modules)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(package)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            return f"the package {package} is not installed; {install}"
        # Without its failed parts, a later attempt would give another reason.
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == package:
                del sys.modules[name]
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_VALUE_LENGTH]
        return (
            f"the package {package} is installed but cannot be imported ({reason}); reinstall it: {install}"
        )
    return None


def require(asked: str, *packages: str) -> None:
    """Refuse an option whose optional packages cannot be imported.

    Args:
        asked: the option, as the user typed it, e.g. "hydra/launcher=ray".
        packages: keys of `EXTRAS`.

    Raises:
        UserError: for the first package that cannot be imported; its extra installs the others too.
    """
    for package in packages:
        if problem := import_problem(package):
            raise UserError(f"{asked}: {problem}")


def hidden_file(module: str) -> str:
    """Return a clause for a message if a file of the current folder is hidden by another module of its name, else "".

    Python searches the current folder last, so that its files replace no library. A `test.py` there is therefore never
    imported: the standard library has a module of that name.

    Args:
        module: name that the user gave, imported or not.
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
