"""Other tools behind the adapter of the conformance suite, each in an environment of its own."""

# Name of the distribution -> the module here that holds its adapter.
RIVALS = {
    "loss-landscapes": "loss_landscapes",
    "landscaper": "landscaper",
    "loss-landscape-3d": "loss_landscape_3d",
    "losscape": "losscape",
    "pyhessian": "pyhessian",
    "hessian-eigenthings": "hessian_eigenthings",
    "curvlinops-for-pytorch": "curvlinops",
}
