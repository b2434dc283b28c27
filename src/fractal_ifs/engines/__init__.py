"""Engines advance runs: "advance these runs by so many steps", and measure them. They know nothing else.

``protocol`` says what an engine offers, ``choice`` which of them trains a run: ``native`` (C++ on CPUs; ``cpp`` is the
face of its compiled modules), ``stacked`` (PyTorch, on any device) or ``conv`` (CNNs, one at a time).
"""
