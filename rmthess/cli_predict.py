"""``rmthess predict NAME``: from a few numbers, from inputs and labels, or from a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmthess.cli_common import fail, named_function

if TYPE_CHECKING:
    from rmthess.predictions.prediction import Prediction

Seed = Annotated[int, typer.Option(min=0, help="Of the drawn networks.")]
Data = Annotated[str, typer.Option(help="digits, or an .npz with X (samples, d) and y (samples,).")]
Problem = Annotated[
    str, typer.Argument(help="package.module:function, of no arguments: (model, loss, data).")
]
AllowCwd = Annotated[
    bool, typer.Option("--allow-cwd", help="Import from the current directory too.")
]
Widths = Annotated[list[int], typer.Argument(help="Inputs, hidden layers, outputs: 64 32 10.")]


predict = typer.Typer(
    help="Predict the spectrum of a Hessian, with nothing to fit.", no_args_is_help=True
)


@predict.command("p_spin")
def p_spin(
    order: Annotated[int, typer.Argument(help="Spins in one product, at least 2.")],
    energy: Annotated[float, typer.Argument(help="Energy of a spin; -- before a negative one.")],
    spins: Annotated[int, typer.Option(help="Of the system.")] = 1000,
) -> None:
    """The index of a critical point of the spherical p-spin model from its energy."""
    from rmthess.predictions.p_spin import p_spin

    _say(p_spin, order, energy, spins)


@predict.command("deep_linear_minimum")
def deep_linear_minimum(
    widths: Widths,
    singular: Annotated[
        list[float], typer.Option(help="Of the learned map; give it once for each.")
    ],
    scale: Annotated[float, typer.Option(help="2/outputs is torch's MSELoss.")] = 1.0,
) -> None:
    """Every eigenvalue of a deep linear network at its balanced minimum."""
    from rmthess.predictions.deep_linear_minimum import deep_linear_minimum

    _say(deep_linear_minimum, singular, widths, scale=scale)


@predict.command("shallow_relu")
def shallow_relu(
    neurons: Annotated[int, typer.Argument(help="Of student and teacher.")],
    inputs: Annotated[int | None, typer.Option(help="Default: as many as neurons.")] = None,
) -> None:
    """A ReLU student that equals its orthonormal teacher, all multiplicities."""
    from rmthess.predictions.shallow_relu import shallow_relu

    _say(shallow_relu, neurons, inputs)


@predict.command("wishart_plus_wigner")
def wishart_plus_wigner(
    widths: Widths,
    samples: Annotated[int, typer.Option(help="Number of data.")],
    energy: Annotated[float, typer.Option(help="Half the mean squared residual.")],
    functional: Annotated[str, typer.Option(help="wigner or relu.")] = "wigner",
) -> None:
    """Pennington and Bahri's Hessian from its widths: a baseline."""
    from rmthess.predictions.wishart_plus_wigner import wishart_plus_wigner

    _say(wishart_plus_wigner, widths, samples, energy, functional=functional)


@predict.command("glm")
def glm(
    loss: Annotated[str, typer.Argument(help="logistic, squared, huber, cauchy, ...")],
    dim: Annotated[int, typer.Option(help="Number of weights.")],
    samples: Annotated[int, typer.Option(help="Number of data.")],
    length: Annotated[float, typer.Option(help="Of the weights.")] = 1.0,
    teacher: Annotated[
        float | None, typer.Option(help="Length of the teacher's weights, if there is one.")
    ] = None,
    cosine: Annotated[float, typer.Option(help="Of the angle to the teacher.")] = 0.0,
    noise: Annotated[float, typer.Option(help="Standard deviation of the labels.")] = 0.0,
) -> None:
    """A generalised linear model on white Gaussian inputs."""
    import numpy as np

    from rmthess.predictions.glm import glm

    if dim < 2 or not -1 <= cosine <= 1:
        fail(f"dim must be at least 2 and cosine between -1 and 1, got {dim} and {cosine}")
    weights = length * np.eye(1, dim)[0]
    other = None
    if teacher is not None:
        plane = cosine * np.eye(1, dim)[0] + (1 - cosine**2) ** 0.5 * np.eye(1, dim, 1)[0]
        other = teacher * plane
    _say(glm, loss, weights, samples, teacher=other, noise=noise)


@predict.command("softmax_glm")
def softmax_glm(
    classes: Annotated[int, typer.Option(help="At least 2.")],
    dim: Annotated[int, typer.Option(help="Number of inputs.")],
    samples: Annotated[int, typer.Option(help="Number of data.")],
    length: Annotated[float, typer.Option(help="Of each class's weights.")] = 1.0,
) -> None:
    """Softmax regression on white Gaussian inputs, the classes' weights orthogonal."""
    import numpy as np

    from rmthess.predictions.softmax_glm import softmax_glm

    if not 2 <= classes <= dim:
        fail(f"classes must be from 2 to the {dim} inputs for orthogonal weights, got {classes}")
    _say(softmax_glm, length * np.eye(classes, dim), samples)


@predict.command("glm_classes")
def glm_classes(
    data: Data = "digits",
    loss: Annotated[str, typer.Option(help="logistic, or another of the output alone.")] = (
        "logistic"
    ),
    positive: Annotated[
        int, typer.Option(help="Classes below this one are on one side of the head.")
    ] = 5,
    length: Annotated[float, typer.Option(help="Of the head's weights.")] = 1.0,
    samples: Annotated[int | None, typer.Option(help="Default: as many as the data have.")] = None,
) -> None:
    """A linear head on real features, a Gaussian a class; along the difference of means.

    The head's weights are the difference of the means of the two sides, of the given length.
    """
    from rmthess.predictions.class_statistics import ClassStatistics
    from rmthess.predictions.glm_classes import glm_classes

    def make() -> Prediction:
        x, labels = _features(data)
        statistics = ClassStatistics.of(x, labels)
        upper = labels >= positive
        if upper.all() or not upper.any():
            raise ValueError(f"positive must separate the labels {labels.min()}..{labels.max()}")
        step = x[upper].mean(axis=0) - x[~upper].mean(axis=0)
        weights = length * step / (step @ step) ** 0.5
        return glm_classes(loss, weights, samples or len(x), statistics)

    _say(make)


@predict.command("batch")
def batch(
    problem: Problem,
    size: Annotated[int, typer.Option(help="Of a set, even, at most half of all.")] = 512,
    sets: Annotated[int, typer.Option(help="At least this many, 8 or more.")] = 12,
    tolerance: Annotated[
        float, typer.Option(help="Relative error of the largest: more sets until it is reached.")
    ] = 0.017,
    count: Annotated[int, typer.Option(help="Eigenvalues from the largest down.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    allow_cwd: AllowCwd = False,
) -> None:
    """The largest eigenvalues of all data from those of batches. Runs the code that you name."""
    from rmthess.predictions.batch_extrapolation import batch_extrapolation

    options: dict[str, Any] = {
        "size": size,
        "sets": sets,
        "tolerance": tolerance,
        "count": count,
        "seed": seed,
    }
    make = _problem(problem, allow_cwd)
    _say(lambda: batch_extrapolation(*make(), **options))


@predict.command("batch_noise")
def batch_noise(
    problem: Problem,
    size: Annotated[int, typer.Option(help="Samples in a batch.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Of the random direction.")] = 0,
    allow_cwd: AllowCwd = False,
) -> None:
    """The largest eigenvalue of a batch from all data. Runs the code that you name."""
    from rmthess.predictions.batch_noise import batch_noise

    make = _problem(problem, allow_cwd)

    def found() -> str:
        noise = batch_noise(*make(), seed=seed)
        return f"{noise}\nlargest in {size} samples {noise.largest(size):.4g}"

    _say(found)


@predict.command("kronecker")
def kronecker(problem: Problem, allow_cwd: AllowCwd = False) -> None:
    """A baseline for the Gauss-Newton block of each Linear layer. Runs the code that you name."""
    from rmthess.predictions.kronecker import kronecker

    make = _problem(problem, allow_cwd)
    for name, found in _called(lambda: kronecker(*make())).items():
        typer.echo(f"layer {name}: {found}")


@predict.command("one_hidden_relu")
def one_hidden_relu(
    hidden: Annotated[int, typer.Argument(help="Hidden units.")],
    data: Data = "digits",
    scale: Annotated[float, typer.Option(help="Times torch's first weights.")] = 1.0,
    seed: Seed = 0,
) -> None:
    """The indefinite part H - G of a ReLU classifier at initialisation, from its data."""
    from rmthess.predictions.one_hidden_relu import one_hidden_relu

    _say(lambda: one_hidden_relu(*_read(data), hidden, scale=scale, seed=seed))


@predict.command("init_cluster")
def init_cluster(
    hidden: Annotated[list[int], typer.Argument(help="Hidden units of each layer.")],
    data: Data = "digits",
    activation: Annotated[str, typer.Option(help="relu or tanh.")] = "relu",
    scale: Annotated[float, typer.Option(help="Times torch's first weights.")] = 1.0,
    seed: Seed = 0,
) -> None:
    """The largest eigenvalues of a classifier at initialisation, from its data."""
    from rmthess.predictions.init_cluster import init_cluster

    options: dict[str, Any] = {"activation": activation, "scale": scale, "seed": seed}
    _say(lambda: init_cluster(*_read(data), hidden, **options))


def _say(make: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Print what is made, and of a ``Prediction`` the share of its bulk below 0."""
    found = _called(lambda: make(*arguments, **options))
    typer.echo(found)
    if not hasattr(found, "bulk"):
        return
    below = float(found.bulk.cdf(0.0)) - sum(m for x, m in _atoms(found) if x == 0)
    if below > 0:
        typer.echo(f"share of negative eigenvalues in the bulk {below:.4g}")


def _called(make: Callable[[], Any]) -> Any:
    """What ``make`` returns; its warnings, and an error, as sentences on standard error."""
    import warnings

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            found = make()
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        fail(error)
    for warning in said:
        typer.echo(f"rmthess: {warning.message}", err=True)
    return found


def _atoms(found: Prediction) -> list[tuple[float, float]]:
    """Nodes and weights where the bulk is a list of eigenvalues, its atoms where it is a law."""
    from rmthess.laws.law import Law

    if isinstance(found.bulk, Law):
        return [(float(x), float(mass)) for x, mass in found.bulk.atoms]
    nodes, weights = getattr(found.bulk, "nodes", []), getattr(found.bulk, "weights", [])
    return [(float(x), float(mass)) for x, mass in zip(nodes, weights, strict=True)]


def _problem(name: str, allow_cwd: bool) -> Callable[[], tuple[Any, Any, Any]]:
    """The named function, checked to return (model, loss, data)."""
    make = named_function(name, allow_cwd)

    def checked() -> tuple[Any, Any, Any]:
        made = make()
        if not (isinstance(made, tuple) and len(made) == 3):
            raise ValueError(f"{name} must return (model, loss, data), got {type(made).__name__}")
        return made

    return checked


def _features(data: str) -> tuple[Any, Any]:
    """Arrays of inputs and labels, without inputs that are constant."""
    import numpy as np

    x, labels = (np.asarray(part) for part in _read(data))
    x = x.reshape(len(x), -1)
    return x[:, np.ptp(x, axis=0) > 0], labels


def _read(data: str) -> tuple[Any, Any]:
    """Inputs and labels."""
    if data == "digits":
        from rmthess.demo.problems import DemoUnavailable, Digits

        try:
            digits = Digits.load()
        except DemoUnavailable as error:
            raise ValueError(str(error)) from error
        return digits.inputs, digits.labels
    import numpy as np

    path = Path(data)
    if path.suffix != ".npz":
        raise ValueError(f"data must be digits or a file .npz with X and y, got {data}")
    with np.load(path, allow_pickle=False) as file:
        missing = [name for name in ("X", "y") if name not in file]
        if missing:
            raise ValueError(f"{data} has no {missing[0]!r}; it must hold X and y")
        return file["X"], file["y"]
