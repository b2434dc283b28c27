"""How large the weights are."""

from __future__ import annotations

from fractal_ifs.measures.snapshot import Snapshot


def norms(snapshot: Snapshot) -> dict[str, float]:
    """The Frobenius norm of each weight matrix, by the name of its layer: ``norm_hidden_0``, ..., ``norm_readout``.

    Biases are left out: whatever has one axis alone.
    """
    matrices = {name: p for name, p in snapshot.whole.named_parameters() if p.dim() > 1}
    return {
        f"norm_{name.removesuffix('.weight').replace('.', '_')}": p.detach().double().square().sum().sqrt().item()
        for name, p in matrices.items()
    }
