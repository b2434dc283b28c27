"""Engines train runs for a number of steps and measure them on their test sets. They know nothing else.

``protocol`` declares what every engine has. ``choice`` decides which one trains a run: ``native`` (C++ on CPUs, through
the module ``cpp``), ``stacked`` (PyTorch on any device, of any network: ``fusing``) or ``conv`` (CNNs, one at a time).
"""
