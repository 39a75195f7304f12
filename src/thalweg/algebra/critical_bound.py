"""A proved bound on the number of critical points of linear networks with one hidden layer.

One sample x with target y, hidden units with weights a_u and b_u, z_u = a_u . x, residual
r = sum_u z_u b_u - y, penalties A_u and B_u (diagonal, positive). The critical equations are
``A_u a_u = -(b_u . r) x`` and ``B_u b_u = -z_u r``. If z_u = 0, then b_u = 0 and a_u = 0: the unit
is dead. Else, with c_u = x . A_u^-1 x and s_u = z_u**2, they give ``c_u r . B_u^-1 r = 1`` and, all
together, ``(1 + sum_u s_u B_u^-1) r = -y``. For m units that are switched on these are m equations
of degrees (2, 0) and k of degrees (1, 1) in the groups r (k unknowns) and s (m unknowns). Their
multihomogeneous number is ``2**m * comb(k, m)``; each solution leaves a sign to every z_u. So there
are at most ``sum_m comb(h, m) comb(k, m) 4**m`` isolated critical points.

A bias of the hidden layer is one more input that is 1; a bias of the outputs adds a constant to the
bracket before r.
"""

from __future__ import annotations

import math

from thalweg.algebra.system import ZeroSystem


def bound_on_critical_points(system: ZeroSystem) -> int | None:
    """Largest possible number of isolated critical points under positive penalties.

    None where no bound is known: for other activations, samples and depths.

    Examples
    --------
    >>> from thalweg.algebra import network, random_system
    >>> bound_on_critical_points(random_system(network((2, 3, 2), (0, 1)), samples=1))
    73
    """
    net = system.network
    if len(net.layers) == 1:  # the equations are linear, and of full rank by the penalties
        return 1
    dense = all(layer.whole and layer.positions_in == 1 for layer in net.layers)
    if not dense or len(net.layers) != 2 or system.samples != 1 or net.activation[0] != 0:
        return None
    if net.degree != 1:
        return None
    units, outputs = net.layers[0].channels_out, net.outputs
    return int(sum(math.comb(units, m) * math.comb(outputs, m) * 4**m for m in range(units + 1)))
