"""How often the network says +1."""

from __future__ import annotations

from fractal_ifs.measures.snapshot import Snapshot


def balance(snapshot: Snapshot) -> dict[str, float]:
    """Two shares of the test set: of the points that the network calls positive, and of those that are.

    A network that says the same of all points has 0 or 1 in the first.
    """
    test = snapshot.test
    said, labels = (snapshot.outputs(test) > 0, test.y > 0)
    return {"said_positive": said.double().mean().item(), "labels_positive": labels.double().mean().item()}
