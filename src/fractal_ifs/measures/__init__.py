"""What is measured of a network besides its test set, at every evaluation: one small function for each idea.

``sets`` are measured by the run's own engine: a function gives the sets. ``snapshot`` has what the other functions are
given: the network as it is, with its data. ``take`` calls all that the key ``measures`` names, whose names are in
``config.measures``; ``named`` has our functions by their names, and ``own`` says what a user's own must be.

Nothing here can change a run: it gets copies, and draws from a stream of its own. What fails costs its number.
"""
