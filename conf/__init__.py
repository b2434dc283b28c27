"""The configs. With this file Hydra finds them as ``pkg://fractal_ifs.conf``, in any application's searchpath."""
