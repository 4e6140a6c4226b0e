"""Draws the figure of the README: python tools/readme_figure.py"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import nn

import rmthess as rm
from rmthess.demo import problems
from rmthess.demo.study import EPOCHS, one_thread
from rmthess.plots import plot_jacobi

TARGET = Path(__file__).parent.parent / "assets" / "measured-and-predicted.png"
SEED = 0


@one_thread()
def main() -> None:
    digits = problems.Digits.load()
    model, loss = problems.relu_classifier(SEED), nn.CrossEntropyLoss()
    data = (digits.inputs, digits.labels)
    problems.train(model, loss, *data, epochs=EPOCHS, rate=0.1, seed=SEED)
    hessian = rm.hessian(model, loss, data)
    network = rm.lanczos(hessian, steps=96, probes=8, seed=SEED)
    exact = rm.DiscreteMeasure.from_eigenvalues(rm.eigenvalues(hessian))
    covariance = rm.lanczos(problems.gaussian_covariance(1000, 2500, SEED), steps=96, seed=SEED)
    fit = rm.fit(rm.MarchenkoPastur, covariance)
    refused = rm.fit(rm.Semicircle, network)

    figure = Figure(figsize=(11, 3.6), dpi=150, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    rm.plot(
        covariance, fit.law, ax=left, width=covariance.resolution,
        labels=("Lanczos ± 1 s.e.", f"Marchenko–Pastur, p = {fit.p_value:.2f}"),
    )  # fmt: skip
    left.set_title("covariance of Gaussian data: accepted")
    plot_jacobi(covariance, fit.law, ax=middle, labels=("Lanczos", "Marchenko–Pastur"))
    middle.set_title("the same fit, as Lanczos reads it")
    rm.plot(
        network, exact, refused.law, ax=right, width=network.resolution,
        labels=("Lanczos ± 1 s.e.", "all exact eigenvalues", "best semicircle, p < 0.01"),
    )  # fmt: skip
    right.set_yscale("log")
    right.set_ylim(3e-3, 3e2)
    right.set_title("Hessian of a trained network: refused")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        for line, dashes in zip(axes.lines, ("-", "--", ":"), strict=False):
            if axes is not middle:
                line.set_linestyle(dashes)
        axes.legend(frameon=False, fontsize=9)
        axes.title.set_fontsize(11)
    middle.set_ylim(np.array([-0.5, 3.1]))
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, metadata={"Software": None})
    print(TARGET)


if __name__ == "__main__":
    main()
