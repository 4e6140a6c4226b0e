"""``rmthess doctor``: what this machine offers."""

from __future__ import annotations

import typer


def doctor() -> None:
    """What this machine offers: versions, device, threads."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    import rmthess

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    cuda = torch.cuda.is_available()
    rows = {
        "rmthess": rmthess.__version__,
        "python": platform.python_version(),
        **{name: installed(name) for name in ("numpy", "scipy", "torch", "sympy", "scikit-learn")},
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": str(torch.get_num_threads()),
    }
    for name, value in rows.items():
        typer.echo(f"{name:<14}{value}")
