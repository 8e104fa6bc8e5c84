"""Every way to run, test and document wsflow: ``nox -l`` lists them.

Sessions install with pip in a virtualenv, in one command each: so the bounds on torch hold, and its small
CPU build is taken where the package index offers one.
"""

from __future__ import annotations

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["tests", "lint", "types", "doctest", "docs"]
nox.options.reuse_existing_virtualenvs = True

# many small tensor operations: more threads, on cores that have something else to do, wait for each other
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
PARALLEL = ["-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]
# of torch, on x86; None is what the machine has
KERNELS = ("default", "avx2", None)


@nox.session
def demo(session: nox.Session) -> None:
    """The main job, from trained networks to new ones; arguments go to ``wsflow demo``."""
    session.install(".")
    session.run("wsflow", "demo", *(session.posargs or ["--out", "wsflow-demo", "--force"]))


@nox.session
def tests(session: nox.Session) -> None:
    """The tests; arguments go to pytest."""
    session.install("-e", ".[test]")
    session.run("pytest", *(session.posargs or PARALLEL), env=ONE_THREAD)


@nox.session
def kernels(session: nox.Session) -> None:
    """The tests under each set of kernels, with one thread and two, and with ten draws of examples: some hours."""
    session.install("-e", ".[test]")
    chosen = session.posargs or PARALLEL
    session.env["WSFLOW_EXAMPLES"] = "2000"
    for capability in KERNELS:
        for threads in ("1", "2"):
            session.run("pytest", *chosen, env={"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": threads})
    for seed in range(10):
        session.run("pytest", "--hypothesis-profile=random", f"--hypothesis-seed={seed}", *chosen, env=ONE_THREAD)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Mutated and drawn files for every reader, 100,000 each or as ``--files`` says, on top of those of before."""
    session.install("-e", ".[test]")
    session.run("python", "benchmarks/mutations.py", *session.posargs, env=ONE_THREAD)


@nox.session
def lint(session: nox.Session) -> None:
    """Style: ruff's checks, and its formatting."""
    session.install("ruff>=0.14")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Static types of the package."""
    session.install("-e", ".", "mypy>=1.15")
    session.run("mypy", *session.posargs)


@nox.session
def doctest(session: nox.Session) -> None:
    """The examples in the docstrings."""
    session.install("-e", ".[test]")
    session.run("pytest", "--doctest-modules", "wsflow", *session.posargs, env=ONE_THREAD)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, its gallery's pictures included, into docs/_build/html."""
    session.install("-e", ".[docs]")
    command = ["sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html"]
    session.run(*command, *session.posargs, env=ONE_THREAD)
