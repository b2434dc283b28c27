"""Engines train runs for a number of steps and measure them on their test sets. They know nothing else.

``protocol`` declares what every engine has. ``choice`` decides which one trains a run: ``native`` (C++ on CPUs, through
the module ``cpp``), ``cuda`` (CUDA C++ on GPUs: ``cuda_kernel`` is what runs there, ``cuda_device`` where), ``stacked``
(PyTorch on any device, of any network: ``fusing``) or ``conv`` (CNNs, one at a time).
"""
