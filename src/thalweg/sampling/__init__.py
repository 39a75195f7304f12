"""Markov chains on a landscape: kernels that step many chains at once, and their diagnostics."""

from thalweg.sampling.annealing import LogRatio, anneal
from thalweg.sampling.blocks import NewtonBlocks
from thalweg.sampling.chains import Chains, adapt, sample
from thalweg.sampling.control_variates import without_scatter_of
from thalweg.sampling.diagnostics import Diagnosis, bulk_ess, diagnose, rhat, tail_ess
from thalweg.sampling.hmc import Hamiltonian
from thalweg.sampling.kernel import Kernel, State
from thalweg.sampling.langevin import Langevin, Metropolis, langevin_step
from thalweg.sampling.posterior import Posterior
from thalweg.sampling.slices import Slices
from thalweg.sampling.tempering import Tempering
from thalweg.sampling.underdamped import Underdamped
from thalweg.sampling.whitening import Whitening, plain_whitening, whiten

__all__ = [
    "Chains",
    "Diagnosis",
    "Hamiltonian",
    "Kernel",
    "Langevin",
    "LogRatio",
    "Metropolis",
    "NewtonBlocks",
    "Posterior",
    "Slices",
    "State",
    "Tempering",
    "Underdamped",
    "Whitening",
    "adapt",
    "anneal",
    "bulk_ess",
    "diagnose",
    "langevin_step",
    "plain_whitening",
    "rhat",
    "sample",
    "tail_ess",
    "whiten",
    "without_scatter_of",
]
